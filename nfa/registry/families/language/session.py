"""One tracked fine-tuning: what happens at steps, at evaluations, at checkpoints and at the end."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from nfa.checkpoint_schedule import fit
from nfa.console import stage
from nfa.registry import tracking
from nfa.registry.families.language import adapters, report
from nfa.registry.families.language.compute import training_operations
from nfa.registry.families.language.factors import StartFactors
from nfa.registry.families.language.scores import score_answers
from nfa.registry.families.language.start import start
from nfa.registry.families.language.workload import LanguageModel
from nfa.registry.families.rebuild import INITIAL
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.loop import Training, Watched
from nfa.registry.training.rates import RATES
from nfa.registry.training.settings import SPACE_MARGIN, data_inputs, run_config
from nfa.registry.training.time_spent import keep_time
from nfa.registry.training.tracked import TrackedTraining

STATE_COPIES = 3  # what is trained, and two of Adam's
EVALUATIONS = 10


class LanguageTraining:
    """The training of `workload` in `run`. An epoch of the loop is one optimizer step."""

    def __init__(
        self,
        run: TrackedRun,
        workload: LanguageModel,
        factors: StartFactors | None,
        data: Mapping[str, Any],
        clock: Stopwatch,
    ) -> None:
        self.run, self.workload, self.factors, self.clock = run, workload, factors, clock
        self.config, self.steps = workload.config, workload.steps
        with clock.section("base model"):
            self.model = start(workload)
        self.schedule = fit(self.config.schedule, self.steps)
        every = max(1, self.steps // EVALUATIONS) if self.config.eval_every == "auto" else int(self.config.eval_every)
        self.evaluated = sorted({*range(0, self.steps + 1, every), *self.schedule, self.steps})
        self.training = Training(
            workload,
            self.model,
            workload.optimizers(self.model),
            batch_size=self.config.step_size,
            seed=self.config.seed,
            objective=workload.objective(),
            order=workload.order,
            clip_norm=self.config.clip_norm or math.inf,  # the norm is measured either way
            accumulation=self.config.accumulation,
            autocast=workload.autocast,
            unit="step",
            watched=Watched(workload.groups(self.model).names, self.evaluated),
        )
        self.stored = self._stored(data)
        self.positions = [0]  # tokens seen after so many steps
        self.answers: dict[int, Tensor] = {}  # by evaluation, the summed loss of each held-out answer
        self.tracked = TrackedTraining(
            run, self.training, self.stored, clock, name=self.config.init, steps=self.steps, memory=self._memory
        )

    def _stored(self, data: Mapping[str, Any]) -> dict[str, Any]:
        base = self.workload.base
        fields = {**dataclasses.asdict(self.config), "resume": ""}
        return {
            **run_config("train_lora", "lora", fields, data),
            "base": {
                "name": base.name,
                "digest": base.digest,
                "parameters": base.parameters,
                "own_dropout": adapters.own_dropout(self.model),
            },
            "modules": list(self.workload.sites(self.model)),
            "narrower": adapters.narrower(self.model, self.config.rank),
            "residual": self.config.residual,
            "factors": dict(self.factors.facts) if self.factors else {},
            "steps": self.steps,
        }

    def _memory(self) -> dict[str, Any]:
        steps = sorted(self.answers)
        return {"answers": {"steps": steps, "sums": [self.answers[step] for step in steps]}}

    def describe(self) -> None:
        """Everything about the run that is known before it starts, after a check that it can be stored."""
        run, config = self.run, self.config
        trained = sum(each.numel() * each.element_size() for each in self.model.parameters() if each.requires_grad)
        final = 4 * self.workload.base.parameters if config.init == "full" else 2 * trained
        total = trained * (len(self.schedule) + 1 + 2 * STATE_COPIES) + final + SPACE_MARGIN
        with self.clock.section("tracking"):
            tracking.check_space(run.info, total=total, largest=max(final, trained * STATE_COPIES))
            run.log_params({name: value for name, value in self.stored["train"].items() if name != "resume"})
            run.log_datasets(data_inputs(self.stored, self.workload.example_ids))
            initial = self.workload.initial
            if initial is not None:
                tensors = {name: tensor.contiguous() for name, tensor in initial.items()}
                tracking.put_tensors(run.info, INITIAL, tensors)
            tracking.put_json(run.info, "config.json", self.stored)
            tracking.put_json(run.info, "example_ids.json", self.workload.example_ids)
        self._announce()

    def _announce(self) -> None:
        config, modules = self.config, self.stored["modules"]
        trained = sum(weight.numel() for weight in self.model.parameters() if weight.requires_grad)
        how = "weights" if config.init == "full" else f"rank {config.rank}, alpha {config.alpha:g}"
        said = f"{config.init} {config.start}" if config.init == "svd" else config.init
        stage("model", f"{said}, {how}: {len(modules)} of {len(modules)} targets, {trained:,} trained parameters")
        for line in self._unasked():
            stage("notice", line)
        stage("optimizer", f"AdamW, lr {config.lr} {config.lr_schedule}, {config.step_size} questions a step")
        counts = f"{self.steps} steps, {len(self.schedule)} checkpoints, {len(self.evaluated)} evaluations"
        stage("run", f"{self.run.run_id}, {counts}")

    def _unasked(self) -> Iterator[str]:
        """What trains otherwise than the parameters say."""
        if narrow := self.stored["narrower"]:
            least = min(narrow, key=lambda name: narrow[name])
            said = f"have fewer directions than rank={self.config.rank} ({least}: {narrow[least]})"
            yield f"{len(narrow)} of {len(self.stored['modules'])} modules {said}; config.json names them"
        if own := self.stored["base"]["own_dropout"]:
            shares = ", ".join(f"{name} {share:g}" for name, share in own.items())
            yield f"the base's own dropout is on in training, whatever dropout says: {shares}"

    def restore(self) -> None:
        """Take up the run's training state, if it has one."""
        state = self.tracked.restore()
        if state:
            stored = state["answers"]
            self.answers = dict(zip(stored["steps"], stored["sums"], strict=True))

    def train(self) -> None:
        """Train to the last step."""
        self.tracked.train(self.steps, self._after_step)

    def _after_step(self, step: int) -> None:
        values = self._of_step(step) if step else {}
        if step not in self.evaluated:
            self.tracked.log(step, values)
            return
        with self.clock.section("evaluation"):
            scores = score_answers(self.workload, self.model, self.workload.ids("val"))
        self.answers[step] = scores.sums
        spent = training_operations(self.model, self._seen(step))
        values |= {"eval/loss": scores.loss, "compute/flops": spent, **self.training.flow}
        (self.tracked.checkpoint if step in self.schedule else self.tracked.log)(step, values)
        if step in self.schedule:
            keep_time(self.run, self.clock)
        shown = f"train {values['train/step_loss']:.4f}  " if step else ""
        stage(f"step {step}", f"{shown}eval {scores.loss:.4f}")

    def _seen(self, steps: int) -> int:
        """Tokens, padding included, in so many steps."""
        while len(self.positions) <= steps:
            self.positions.append(self.positions[-1] + self.workload.positions(len(self.positions) - 1))
        return self.positions[steps]

    def _of_step(self, step: int) -> dict[str, float]:
        """What the step was: the loss of its questions before it, the gradient's norm before clipping, its rate."""
        last = self.training.last
        rate = float(self.config.lr) * RATES[self.config.lr_schedule](self.steps)(step - 1)
        return {
            "train/step_loss": float(last["loss"]),
            "train/grad_norm": float(last["grad_norm"]),
            "train/learning_rate": rate,
        }

    def finish(self) -> None:
        """The final model, the log as a table, the loss curves, and how each held-out answer was predicted."""
        with self.clock.section("tracking"):
            self.run.metrics.flush()
            steps = sorted(self.answers)
            sums = torch.stack([self.answers[step] for step in steps])
            series = tracking.history(self.run.run_id)
            best = min(self.tracked.kept(self.schedule), key=lambda step: series["eval/loss"][step])
            self.run.tag({"nfa.best_epoch": str(best)})
            report.answers(self.run, self.workload, steps, sums)
            report.report(self.run, self.workload, series)
            report.save_model(self.run, self.workload, self.model)
        losses = series["eval/loss"]
        stage("eval", f"{losses[0]:.4f} → {losses[self.steps]:.4f}, best {min(losses.values()):.4f}")
        stage("time", str(self.clock))
