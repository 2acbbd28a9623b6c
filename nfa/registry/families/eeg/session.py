"""One tracked training on EEG: what happens at evaluations, at checkpoints and at the end."""

from collections.abc import Mapping
from typing import Any

import torch.nn as nn

from nfa.checkpoint_schedule import fit
from nfa.console import stage
from nfa.parallel import World
from nfa.registry import tracking
from nfa.registry.families.eeg import report
from nfa.registry.families.eeg.baseline import baseline
from nfa.registry.families.eeg.scores import Scores, score
from nfa.registry.families.eeg.workload import EEGDecoder
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.tracking.event_files import EventFiles
from nfa.registry.training.loop import Training, Watched
from nfa.registry.training.settings import SPACE_MARGIN, data_inputs, decoder_config
from nfa.registry.training.time_spent import keep_time
from nfa.registry.training.tracked import TrackedTraining, check_finite

TRAIN_WINDOWS = 256  # of the probe, on which train/loss is evaluated
BYTES, STATE_COPIES = 4, 4  # weights, two of Adam's, the best so far
TAGS = {  # TensorBoard's names for what MLflow calls train/loss …
    "train/loss": "Train/loss_total",
    "train/loss_mse": "Train/loss_mse",
    "train/loss_pearson": "Train/loss_pearson",
    "val/loss": "Validation/loss",
    "val/pearson": "Validation/pearson",
    "test/loss": "Test/loss",
    "test/pearson": "Test/pearson",
    "flow/grad_norm": "Gradient/norm",
}


def training_of(workload: EEGDecoder, world: World) -> tuple[Training, list[int]]:
    """The training that the workload's configuration asks for, and its checkpoint epochs; the same in all processes."""
    config, model = workload.config, workload.model()
    schedule = fit(config.schedule, int(config.epochs))
    training = Training(
        workload,
        model,
        workload.optimizers(model),
        batch_size=int(config.batch_size),
        seed=config.seed,
        order=workload.draw,
        world=world,
        clip_norm=config.clip_norm,
        autocast=workload.autocast,
        watched=Watched(workload.groups(model).names, _evaluated(workload)),
    )
    return training, schedule


def _evaluated(workload: EEGDecoder) -> list[int]:
    """Epochs with an evaluation: every `eval_every`-th, and those with a checkpoint."""
    config = workload.config
    epochs = int(config.epochs)
    return sorted({*range(0, epochs + 1, config.eval_every), *fit(config.schedule, epochs)})


def _evaluate(workload: EEGDecoder, model: nn.Module, world: World) -> dict[str, Scores | None]:
    """Scores on the first windows of the probe and on all of val, made by all processes."""
    examples = {"train": workload.ids("probe")[:TRAIN_WINDOWS], "val": workload.ids("val")}
    return {split: score(workload, model, split, list(ids), world) for split, ids in examples.items()}


def assist(workload: EEGDecoder, world: World, state: Mapping[str, Any] | None) -> None:
    """Train and evaluate this process's part of every batch, in step with the first process, which tracks."""
    training, _ = training_of(workload, world)
    if state is not None:
        training.restore(state)
    evaluated = _evaluated(workload)

    def after_epoch(epoch: int) -> None:
        if epoch in evaluated:
            _evaluate(workload, training.model, world)

    training.run(int(workload.config.epochs), after_epoch)


class DecoderTraining:
    """The training of `workload` in `run`; the first process of `world` makes it."""

    def __init__(self, run: TrackedRun, workload: EEGDecoder, clock: Stopwatch, world: World) -> None:
        self.run, self.workload, self.clock, self.world = run, workload, clock, world
        self.config = workload.config
        self.epochs = int(self.config.epochs)
        self.training, self.schedule = training_of(workload, world)
        self.model = self.training.model
        self.evaluated = _evaluated(workload)
        self.stored = decoder_config(self.config, workload.data)
        self.best: dict[str, Any] = {}
        self.tracked = TrackedTraining(
            run, self.training, self.stored, clock, name=self.config.optimizer, memory=lambda: {"best": self.best}
        )
        self.events = EventFiles(run)

    def describe(self) -> None:
        """Everything about the run that is known before it starts, after a check that it can be stored."""
        config, run = self.config, self.run
        parameters = sum(weight.numel() for weight in self.model.parameters())
        weights = parameters * BYTES
        total = weights * (len(self.schedule) + 1 + 2 * STATE_COPIES) + SPACE_MARGIN
        with self.clock.section("tracking"):
            tracking.check_space(run.info, total=total, largest=weights * STATE_COPIES)
            run.log_params({name: value for name, value in self.stored["train"].items() if name != "resume"})
            run.log_datasets(data_inputs(self.stored, self.workload.example_ids))
            tracking.put_json(run.info, "config.json", self.stored)
            tracking.put_json(run.info, "example_ids.json", self.workload.example_ids)
        stage(
            "model",
            f"Conformer {config.preset}, {config.n_layers} blocks of width {config.d_model}, windows of "
            f"{self.workload.window} samples, {parameters:,} parameters",
        )
        stage("optimizer", f"{config.optimizer}, lr {config.lr} × {config.lr_decay} every {config.lr_step} epochs")
        stage("run", f"{run.run_id}, {len(self.schedule)} checkpoints and the best, {len(self.evaluated)} evaluations")
        with self.clock.section("baseline"):
            self.baseline = baseline(self.workload.data, self.workload.window)
        said = self.baseline.pearson_of("test")
        stage("baseline", "linear: " + ("undefined" if said is None else f"r = {said:.4f} on test"))

    def restore(self) -> None:
        """Take up the run's training state, if it has one, and tell the other processes."""
        state = self.tracked.restore()
        self.best = dict(state["best"]) if state else {}
        self.world.broadcast((self.config, dict(self.workload.example_ids), state))

    def train(self) -> None:
        """Train to the last epoch."""
        self.tracked.train(self.epochs, self._after_epoch, self._after_batch)

    def _after_batch(self) -> None:
        every, at = self.config.histograms_every, self.training.progress
        step = at.epoch * self.training.batches_per_epoch + at.batch
        if every and step % every == 0:
            named = dict(self.model.named_parameters())
            gradients = {f"Gradient/{name}": weight.grad for name, weight in named.items() if weight.grad is not None}
            self.events.histograms({**gradients, **{f"Weight/{name}": each for name, each in named.items()}}, step)

    def _after_epoch(self, epoch: int) -> None:
        if epoch not in self.evaluated:
            return
        with self.clock.section("evaluation"):
            scores = _evaluate(self.workload, self.model, self.world)
        train, val = scores["train"], scores["val"]
        assert train
        assert val
        losses = {key: value for key, value in train.series("train").items() if not key.endswith("undefined_windows")}
        values = {**losses, **val.series("val"), **self.training.flow}
        self._remember(epoch, values)
        check_finite(epoch, values)
        with self.clock.section("tracking"):
            self.events.scalars(_tagged(values), epoch)
        if epoch in self.schedule:  # after all else of the epoch, which is not made again once it has a checkpoint
            self._draw(epoch, val)
            self.events.flush()
            self.tracked.checkpoint(epoch, values)
            keep_time(self.run, self.clock)
        else:
            self.tracked.log(epoch, values)
        r = f"{values['val/pearson']:.4f}" if "val/pearson" in values else "undefined"
        stage(f"epoch {epoch}", f"train {values['train/loss']:.4g}  val {values['val/loss']:.4g}  val r {r}")

    def _remember(self, epoch: int, values: Mapping[str, float]) -> None:
        """Keep the weights if validation has never been better: by r, and by the loss as long as r is undefined."""
        reached = (values["val/pearson"],) if "val/pearson" in values else (-2.0, -values["val/loss"])
        if not self.best or list(reached) > self.best["reached"]:
            weights = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
            self.best = {"epoch": epoch, "reached": list(reached), "weights": weights}

    def _draw(self, epoch: int, val: Scores) -> None:
        if self.run.thrifty:
            return
        with self.clock.section("tracking"):
            figure = report.envelope_figure(self.workload, self.model, val, epoch)
            tracking.save_picture(self.run, figure, f"envelope_epoch_{epoch}", also_pdf=False)
            self.events.figure("envelope", figure, epoch)

    def finish(self) -> None:
        """The best weights' checkpoint and their test; reports, all from what the run has logged."""
        epoch = self.best["epoch"]
        self.model.load_state_dict(self.best["weights"])
        with self.clock.section("evaluation"):
            test, val = (
                score(self.workload, self.model, split, list(self.workload.ids(split))) for split in ("test", "val")
            )
        assert test
        assert val
        values = {**test.series("test"), **self.baseline.series()}
        with self.clock.section("tracking"):
            if epoch not in self.tracked.kept(self.schedule):
                self.tracked.save(epoch)
                self._draw(epoch, val)
            self.tracked.log(epoch, values)
            self.run.tag({"nfa.best_epoch": str(epoch)})
            self.events.scalars(_tagged(values), epoch)
            self.run.metrics.flush()
            report.report(self.run, {"val": val, "test": test}, self.baseline, epoch)
        report.say(test, self.baseline, epoch)
        stage("time", str(self.clock))

    def close(self) -> None:
        """End the event files."""
        self.events.close()


def _tagged(values: Mapping[str, float]) -> dict[str, float]:
    return {TAGS[key]: value for key, value in values.items() if key in TAGS}
