"""The session of a fine-tuning: start, steps, evaluations, checkpoints and the final report."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
import torch.nn as nn
from torch import Tensor

from nfa.bookkeeping import FLOPS
from nfa.checkpoint_schedule import fit
from nfa.console import stage
from nfa.errors import NfaError
from nfa.measures.evaluation import record_outputs
from nfa.registry import tracking
from nfa.registry.families.language import adapters, report
from nfa.registry.families.language.base.models import load_model
from nfa.registry.families.language.compute import OPERATIONS, training_operations
from nfa.registry.families.language.ready import INITIAL, ReadyToTune, stored_config
from nfa.registry.families.language.scores import score_answers
from nfa.registry.families.language.workload import DTYPES, LanguageModel
from nfa.registry.families.protocol import Ready
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.loop import Training, Watched
from nfa.registry.training.session import Session, Tracked

EVALUATIONS = 10
QUESTIONS = 2  # questions whose initial logits are compared
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}  # of the largest |logit|
HALF_TOLERANCE = 0.05


def loop(workload: LanguageModel, model: nn.Module, watched: Watched | None = None) -> Training:
    """Return the training of `model` as the workload's configuration asks for it, before its first step."""
    config = workload.config
    return Training(
        workload,
        model,
        workload.optimizers(model),
        batch_size=config.step_size,
        seed=config.seed,
        objective=workload.objective(),
        order=workload.order,
        clip_norm=config.clip_norm or math.inf,  # without clipping the norm is still measured
        accumulation=config.accumulation,
        autocast=workload.autocast,
        unit="step",
        count_flops=False,  # by a formula, because the length of batches varies
        watched=watched,
    )


class LanguageSession(Session):
    """A fine-tuning; an epoch of the loop is one optimizer step."""

    unit: ClassVar[str] = "step"

    def __init__(self, run: TrackedRun, ready: Ready, clock: Stopwatch) -> None:
        workload = ready.workload
        assert isinstance(ready, ReadyToTune)
        assert isinstance(workload, LanguageModel)
        self.run, self.workload, self.factors, self.clock = run, workload, ready.factors, clock
        self.config, self.example_ids = workload.config, ready.example_ids
        self.last = self.steps = workload.steps
        self.called, self.state_copies = self.config.init, self.config.entry.copies
        with clock.section("base model"):
            self.model = start(workload)
        self.schedule = fit(self.config.schedule, self.steps)
        every = max(1, self.steps // EVALUATIONS) if self.config.eval_every == "auto" else int(self.config.eval_every)
        self.evaluated = sorted({*range(0, self.steps + 1, every), *self.schedule, self.steps})
        self.training = loop(workload, self.model, Watched(workload.groups(self.model).names, self.evaluated))
        self.stored = self._stored(ready)
        self.positions = [0]  # tokens seen, by number of steps
        self.answers: dict[int, Tensor] = {}  # summed loss of each held-out answer, by step

    def _stored(self, ready: ReadyToTune) -> dict[str, Any]:
        stored = stored_config(self.config, ready.data)
        return {
            **stored,
            "base": {**stored["base"], "own_dropout": adapters.own_dropout(self.model)},
            "modules": list(self.workload.sites(self.model)),
            "narrower": adapters.narrower(self.model, self.config.rank),
            "residual": self.config.residual,
            "factors": dict(self.factors.facts) if self.factors else {},
            "steps": self.steps,
        }

    def memory(self) -> Mapping[str, Any]:
        """Return the held-out losses so far."""
        steps = sorted(self.answers)
        return {"answers": {"steps": steps, "sums": [self.answers[step] for step in steps]}}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        if state:
            stored = state["answers"]
            self.answers = dict(zip(stored["steps"], stored["sums"], strict=True))

    def space(self) -> tuple[int, int]:
        """Return sizes that include the final model."""
        trained, _ = super().space()
        return trained, 4 * self.workload.base.parameters if self.config.init == "full" else 2 * trained

    def tensors(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Return the adapter at step 0."""
        initial = self.workload.initial
        return {} if initial is None else {INITIAL: {name: each.contiguous() for name, each in initial.items()}}

    def lines(self) -> Iterator[tuple[str, str]]:
        config, modules = self.config, self.stored["modules"]
        trained = sum(weight.numel() for weight in self.model.parameters() if weight.requires_grad)
        how = "weights" if config.init == "full" else f"rank {config.rank}, alpha {config.alpha:g}"
        said = f"{config.init} {config.start}" if config.init == "svd" else config.init
        yield "model", f"{said}, {how}: {len(modules)} of {len(modules)} targets, {trained:,} trained parameters"
        for line in self._unasked():
            yield "notice", line
        yield "optimizer", f"{config.described_optimizer('step')}, {config.step_size} questions a step"
        counts = f"{self.steps} steps, {len(self.schedule)} checkpoints, {len(self.evaluated)} evaluations"
        yield "run", f"{self.run.run_id}, {counts}"

    def _unasked(self) -> Iterator[str]:
        """Yield notices about differences between parameters and training."""
        if narrow := self.stored["narrower"]:
            least = min(narrow, key=lambda name: narrow[name])
            said = f"have fewer directions than rank={self.config.rank} ({least}: {narrow[least]})"
            yield f"{len(narrow)} of {len(self.stored['modules'])} modules {said}; they are listed in config.json"
        if own := self.stored["base"]["own_dropout"]:
            shares = ", ".join(f"{name} {share:g}" for name, share in own.items())
            yield f"the base model's own dropout is active in training, regardless of dropout: {shares}"

    def measure(self, epoch: int, *, checkpoint: bool) -> dict[str, float]:  # noqa: ARG002
        values = self._of_step(epoch) if epoch else {}
        if epoch not in self.evaluated:
            return values
        with self.clock.section("evaluation"):
            scores = score_answers(self.workload, self.model, self.workload.ids("val"))
        self.answers[epoch] = scores.sums
        spent = training_operations(self.model, self._seen(epoch))
        return values | {"eval/loss": scores.loss, FLOPS: spent, **self.training.flow}

    def line(self, epoch: int, values: Mapping[str, float]) -> str:
        if "eval/loss" not in values:
            return ""
        shown = f"train {values['train/step_loss']:.4f}  " if epoch else ""
        return f"{shown}eval {values['eval/loss']:.4f}"

    def _seen(self, steps: int) -> int:
        """Return the tokens, including padding, seen in this number of steps."""
        while len(self.positions) <= steps:
            self.positions.append(self.positions[-1] + self.workload.positions(len(self.positions) - 1))
        return self.positions[steps]

    def _of_step(self, step: int) -> dict[str, float]:
        """Return the step's training loss, gradient norm before clipping, and learning rate."""
        last = self.training.last
        rate = float(self.config.lr) * self.training.optimizer.rate(step - 1)
        return {
            "train/step_loss": float(last["loss"]),
            "train/grad_norm": float(last["grad_norm"]),
            "train/learning_rate": rate,
        }

    def finish(self, tracked: Tracked) -> None:
        """Store the final model, the log as a table, the loss curves, and the loss of each held-out answer."""
        with self.clock.section("tracking"):
            self.run.metrics.flush()
            steps = sorted(self.answers)
            sums = torch.stack([self.answers[step] for step in steps])
            series = tracking.history(self.run.run_id, (*report.COLUMNS.values(), *OPERATIONS))
            best = min(tracked.kept(self.schedule), key=lambda step: series["eval/loss"][step])
            self.run.tag({"nfa.best_epoch": str(best)})
            report.answers(self.run, self.workload, steps, sums)
            report.report(self.run, self.workload, series)
            report.save_model(self.run, self.workload, self.model)
        losses = series["eval/loss"]
        self.reached = f"{losses[0]:.4f} → {losses[self.steps]:.4f}, best {min(losses.values()):.4f}"
        stage("eval", self.reached)

    @property
    def pictures(self) -> tuple[str, ...]:  # type: ignore[override]
        return (f"loss_curves_{self.config.init}",)

    def results(self) -> list[str]:
        return [f"held-out loss {self.reached} ({len(self.workload.ids('val')):,} questions)"]


def start(workload: LanguageModel) -> nn.Module:
    """Return the model at step 0; raise `NfaError` unless its logits are those of the base (warm: with the update)."""
    base = load_model(workload.base, DTYPES[workload.config.base_precision])
    if workload.config.init == "full":
        return workload.adapted(base).to(workload.device)
    expected = _logits(workload, _with_update(workload, base))
    model = workload.adapted(base).to(workload.device)
    apart = float((_logits(workload, model) - expected).abs().max() / expected.abs().max())
    if not apart <= TOLERANCE.get(expected.dtype, HALF_TOLERANCE):
        raise NfaError(
            f"the model does not start where init={workload.config.init} says: its logits differ by {apart:.1e} of the "
            "largest; please report this with the versions of peft and transformers"
        )
    stage("start", f"logits differ from {_said(workload)} by {apart:.1e} of the largest")
    return model


def _with_update(workload: LanguageModel, base: nn.Module) -> nn.Module:
    """Return the expected initial model: the base, or for a warm start a copy with the update."""
    config = workload.config
    if config.init != "svd" or config.residual or workload.initial is None:
        return base
    other = load_model(workload.base, DTYPES[config.base_precision])
    adapters.put_in(other, workload.initial, workload.scaling)
    return other


def _said(workload: LanguageModel) -> str:
    warm = workload.config.init == "svd" and not workload.config.residual
    return "the base with the update" if warm else "the base"


def _logits(workload: LanguageModel, model: nn.Module) -> Tensor:
    """Return logits on the shortest held-out questions, without mixed precision."""
    shortest = sorted(workload.ids("val"), key=lambda item: len(workload.questions.ids[item]))[:QUESTIONS]
    found: list[Tensor] = []
    batches = workload.batches("val", batch_size=QUESTIONS, ids=shortest)
    record_outputs(model.to(workload.device), workload, batches, lambda outputs, _: found.append(outputs))
    return found[0]
