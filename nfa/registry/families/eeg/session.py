"""The session of a decoder's training: evaluations, checkpoints and the final report."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch.nn as nn

from nfa.checkpoint_schedule import fit
from nfa.console import stage
from nfa.parallel import World
from nfa.registry import tracking
from nfa.registry.families.eeg import report
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.eeg.data import SPLITS, EEGData
from nfa.registry.families.eeg.family import Decoders
from nfa.registry.families.eeg.linear_baseline import baseline
from nfa.registry.families.eeg.scores import Scores, score
from nfa.registry.families.eeg.workload import EEGDecoder
from nfa.registry.families.protocol import Ready
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.tracking.event_files import EventFiles
from nfa.registry.training.config_json import training_config
from nfa.registry.training.loop import Training, Watched
from nfa.registry.training.session import Session, Tracked

TRAIN_WINDOWS = 256  # windows of the probe on which train/loss is evaluated
TAGS = {  # metric keys and their tags in TensorBoard
    "train/loss": "Train/loss_total",
    "train/loss_mse": "Train/loss_mse",
    "train/loss_pearson": "Train/loss_pearson",
    "val/loss": "Validation/loss",
    "val/pearson": "Validation/pearson",
    "test/loss": "Test/loss",
    "test/pearson": "Test/pearson",
    "flow/grad_norm": "Gradient/norm",
}


def stored_config(config: TrainEEGConfig, data: EEGData) -> dict[str, Any]:
    """Return the content of the config.json of a training on EEG."""
    described = {
        "name": data.name,
        "digest": data.digest(),
        "channels": data.channels,
        "subjects": list(data.subjects),
        "parts": {split: len(data.of(split)) for split in SPLITS},
        "held_out": {split: dict(data.held_out(split)) for split in SPLITS[1:]},
        "unseen_subjects": list(data.unseen_subjects()),
        "normalised_by": data.normalised_by(),
    }
    train = {**dataclasses.asdict(config), "split": data.split, "resume": ""}
    return training_config("train_eeg", "eeg", TrainEEGConfig, train, described)


def training_of(workload: EEGDecoder, world: World) -> tuple[Training, list[int]]:
    """Return the training and its checkpoint epochs by the workload's configuration; the same in all processes."""
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
        watched=Watched(workload.groups(model).names, evaluated_epochs(workload)),
    )
    return training, schedule


def evaluated_epochs(workload: EEGDecoder) -> list[int]:
    """Return the epochs with an evaluation: every `eval_every`-th, and those with a checkpoint."""
    config = workload.config
    epochs = int(config.epochs)
    return sorted({*range(0, epochs + 1, config.eval_every), *fit(config.schedule, epochs)})


def evaluate(workload: EEGDecoder, model: nn.Module, world: World) -> dict[str, Scores | None]:
    """Return scores on the first windows of the probe and on all of val, computed by all processes."""
    examples = {"train": workload.ids("probe")[:TRAIN_WINDOWS], "val": workload.ids("val")}
    return {split: score(workload, model, split, list(ids), world) for split, ids in examples.items()}


class DecoderSession(Session):
    """The training of a decoder, which keeps its best weights; it lives in the first process of `world`."""

    pictures = ("training",)
    test: Scores

    def __init__(self, run: TrackedRun, ready: Ready, clock: Stopwatch, world: World) -> None:
        workload = ready.workload
        assert isinstance(workload, EEGDecoder)
        self.run, self.workload, self.clock, self.world = run, workload, clock, world
        self.config, self.example_ids = workload.config, ready.example_ids
        self.last, self.called = int(self.config.epochs), self.config.optimizer
        self.state_copies = self.config.entry.copies + 1  # and the best weights so far
        self.training, self.schedule = training_of(workload, world)
        self.model = self.training.model
        self.evaluated = evaluated_epochs(workload)
        self.stored = stored_config(self.config, workload.data)
        self.best: dict[str, Any] = {}
        self.events = EventFiles(run)

    def lines(self) -> Iterator[tuple[str, str]]:
        config, parameters = self.config, sum(weight.numel() for weight in self.model.parameters())
        sizes = f"{config.n_layers} blocks of width {config.d_model}, windows of {self.workload.window} samples"
        yield "model", f"Conformer {config.preset}, {sizes}, {parameters:,} parameters"
        yield "optimizer", config.described_optimizer()
        counts = f"{len(self.schedule)} checkpoints and the best, {len(self.evaluated)} evaluations"
        yield "run", f"{self.run.run_id}, {counts}"
        with self.clock.section("baseline"):
            self.baseline = baseline(self.workload.data, self.workload.window)
        said = self.baseline.pearson_of("test")
        yield "baseline", "linear: " + ("undefined" if said is None else f"r = {said:.4f} on test")

    def memory(self) -> Mapping[str, Any]:
        """Return the best weights so far."""
        return {"best": self.best}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        self.best = dict(state["best"]) if state else {}

    def told(self, state: Mapping[str, Any] | None) -> Any:
        """Return the examples and the training state."""
        return dict(self.example_ids), state

    def after_batch(self) -> None:
        """Write histograms of weights and gradients every `histograms_every` steps."""
        every, at = self.config.histograms_every, self.training.progress
        step = at.epoch * self.training.batches_per_epoch + at.batch
        if every and step % every == 0:
            named = dict(self.model.named_parameters())
            gradients = {f"Gradient/{name}": weight.grad for name, weight in named.items() if weight.grad is not None}
            self.events.histograms({**gradients, **{f"Weight/{name}": each for name, each in named.items()}}, step)

    def measure(self, epoch: int, *, checkpoint: bool) -> dict[str, float] | None:  # noqa: ARG002
        if epoch not in self.evaluated:
            return None
        with self.clock.section("evaluation"):
            scores = evaluate(self.workload, self.model, self.world)
        train, self.val = scores["train"], scores["val"]
        assert train
        assert self.val
        losses = {key: value for key, value in train.series("train").items() if not key.endswith("undefined_windows")}
        values = {**losses, **self.val.series("val"), **self.training.flow, **self.training.learning_rate(self.config)}
        values |= self.training.flops.values()
        self._remember(epoch, values)
        return values

    def draw(self, epoch: int, values: Mapping[str, float], *, checkpoint: bool) -> None:
        with self.clock.section("tracking"):
            self.events.scalars(_tagged(values), epoch)
        if checkpoint:  # before the checkpoint: what an epoch that has one has drawn is not made again
            assert self.val
            self._draw(epoch, self.val)
            self.events.flush()

    def line(self, epoch: int, values: Mapping[str, float]) -> str:  # noqa: ARG002
        r = f"{values['val/pearson']:.4f}" if "val/pearson" in values else "undefined"
        return f"train {values['train/loss']:.4g}  val {values['val/loss']:.4g}  val r {r}"

    def _remember(self, epoch: int, values: Mapping[str, float]) -> None:
        """Keep the weights if they are the best so far: by validation r, or by the loss while r is undefined."""
        reached = (values["val/pearson"],) if "val/pearson" in values else (-2.0, -values["val/loss"])
        if not self.best or list(reached) > self.best["reached"]:
            weights = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
            self.best = {"epoch": epoch, "reached": list(reached), "weights": weights}

    def _draw(self, epoch: int, val: Scores) -> None:
        if self.run.thrifty:
            return
        with self.clock.section("tracking"):
            title = Decoders().title(self.stored)
            figure = report.envelope_figure(self.workload, self.model, val, epoch, title)
            tracking.save_picture(self.run, figure, f"envelope_epoch_{epoch}", also_pdf=False)
            self.events.figure("envelope", figure, epoch)

    def finish(self, tracked: Tracked) -> None:
        """Store and test the best weights, and write reports from what the run has logged."""
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
            if epoch not in tracked.kept(self.schedule):
                tracked.save(epoch)
                self._draw(epoch, val)
            tracked.log(epoch, values)
            self.run.tag({"nfa.best_epoch": str(epoch)})
            self.events.scalars(_tagged(values), epoch)
            self.run.metrics.flush()
            report.report(self.run, {"val": val, "test": test}, self.baseline, epoch)
        self.test = test
        stage("test", report.said(test, self.baseline, epoch))

    def results(self) -> list[str]:
        return [f"test {report.said(self.test, self.baseline, self.best['epoch'])}"]

    def close(self) -> None:
        """Close the event files."""
        self.events.close()


def _tagged(values: Mapping[str, float]) -> dict[str, float]:
    return {TAGS[key]: value for key, value in values.items() if key in TAGS}
