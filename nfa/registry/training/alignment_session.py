"""A training with our loop that measures AGOP and NFM at its checkpoints, for any network."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch.nn as nn
from torch import Tensor

from nfa.analyses.alignment import Analysis
from nfa.analyses.parameters import AlignmentParameters
from nfa.checkpoint_schedule import fit
from nfa.console import stage
from nfa.errors import Refusal
from nfa.figures.training_analysis import Series
from nfa.maths.bfloat16 import has_bfloat16_units
from nfa.measures.evaluation import Evaluation, evaluate_split, record_outputs, recorded_by
from nfa.observe.found_sites import Sites
from nfa.observe.passes import site_weights
from nfa.plain_text import counted
from nfa.registry import stored_runs, tracking
from nfa.registry.descriptions import of_examples
from nfa.registry.families.protocol import Ready
from nfa.registry.families.registry import family
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training import report
from nfa.registry.training.loop import Training, Watched
from nfa.registry.training.optimizers import Optimizers
from nfa.registry.training.session import Session, Tracked
from nfa.relations import TRAINING
from nfa.workload import Batch, Workload

SHOWN = 12  # values on one line

class AlignmentSession(Session):
    """The training of a workload with `TrainingParameters`; `max_samples` examples are analysed, 0 = all."""

    workload: Workload
    model: nn.Module
    pictures = ("training_analysis",)
    test: Mapping[str, float] = {}

    def __init__(self, run: TrackedRun, ready: Ready, clock: Stopwatch, *, max_samples: int) -> None:
        self.run, self.config, self.clock, self.example_ids = run, ready.config, clock, ready.example_ids
        self.workload, self.model = ready.workload, ready.workload.model()
        self.stored = self.described(ready)
        self.schedule, self.last = fit(self.config.schedule, self.config.epochs), self.config.epochs
        self.called, self.state_copies = self.config.optimizer, self.config.entry.copies
        self.unseen: str = ""
        self.analysis = self._analysis(max_samples)
        self.objective = self.workload.objective()
        self.training = Training(
            self.workload,
            self.model,
            self.optimizers(),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            objective=self.objective,
            clip_norm=self.config.clip_norm,
            watched=Watched(self.workload.groups(self.model).names, self.schedule),
        )

    def _analysis(self, max_samples: int) -> Analysis | None:
        """Return the analysis; None if no site can be analysed, with the reason in `unseen`."""
        relations, precision, seed = ",".join(TRAINING), self.config.precision, self.config.seed
        asked = AlignmentParameters(
            relations=relations, max_samples=max_samples, precision=precision, seed=seed, chance=self.config.chance
        )
        try:
            return Analysis(self.workload, self.model, asked, self._initial)
        except Refusal as refused:
            self.unseen = str(refused).splitlines()[0].removeprefix("cannot use ")
            return None

    def _initial(self, names: list[str], sites: Sites) -> Mapping[str, Tensor]:
        return site_weights(self.workload, self.model, names, sites)

    @abstractmethod
    def described(self, ready: Ready) -> Mapping[str, Any]:
        """Return the content of config.json."""

    @abstractmethod
    def optimizers(self) -> Optimizers:
        """Return the model's optimizers."""

    @abstractmethod
    def title(self) -> str:
        """Return what was trained on what and how, for figures."""

    def recorders(self) -> list[tuple[Callable[[Tensor, Batch], None], Callable[[], dict[str, float]]]]:
        """Return pairs of functions: one gets outputs on the training examples, the other then returns metrics."""
        return []

    @property
    def sites(self) -> list[str]:
        """The analysed sites."""
        return self.analysis.sites if self.analysis else []

    @property
    def coverage(self) -> str:
        """How much of the model is analysed."""
        return self.analysis.coverage if self.analysis else f"watching no weight ({self.unseen})"

    def tags(self) -> dict[str, str]:
        """How much of the model is analysed."""
        return {"nfa.coverage": self.coverage}

    def lines(self) -> Iterator[tuple[str, str]]:
        config = self.config
        yield "model", self.model_line()
        yield "optimizer", config.described_optimizer()
        examples = counted(len(self.analysis.ids) if self.analysis else 0, "example")
        analysed = f"analysis of {examples} in {config.precision}"
        yield "run", f"{self.run.run_id}, {counted(len(self.schedule), 'checkpoint')}, {analysed}"
        yield "coverage", self.coverage
        for notice in self.analysis.notices() if self.analysis else ():
            yield "notice", notice
        if config.precision == "bfloat16" and not has_bfloat16_units(self.workload.device):
            yield "notice", "this processor has no bfloat16 units: bfloat16 rounds the results but saves no time"

    @abstractmethod
    def model_line(self) -> str:
        """Return a description of the model."""

    def parameters(self) -> int:
        """Return the number of parameters, trained or frozen."""
        return sum(weight.numel() for weight in self.model.parameters())

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Take the initial weights from the checkpoint of epoch 0."""
        if state is not None and 0 in tracking.epochs(self.run.run_id):
            start = self.workload.model()
            stored_runs.load_weights(start, self.run.run_id, 0, self.workload)
            if self.analysis:
                self.analysis.measures.initial = site_weights(self.workload, start, self.sites, self.analysis.found)

    def measure(self, epoch: int, *, checkpoint: bool) -> dict[str, float]:  # noqa: ARG002
        with self.clock.section("evaluation"):
            values = evaluate_split(self.model, self.workload, "val")
        values |= self.training.learning_rate(self.config)
        spent = self.training.flops.values()
        return {**values, **self._analyse(), **self.training.flow, **spent} if checkpoint else values

    def _analyse(self) -> dict[str, float]:
        """Measure training loss and alignment, in one pass if they use the same examples in float32."""
        evaluation, others = Evaluation(self.workload), self.recorders()
        record = recorded_by(evaluation.update, *(listener for listener, _ in others))
        shared, similarities = self._serves_both(), {}
        if self.analysis:
            with self.clock.section("analysis"):
                told = record if shared else None
                similarities = self.analysis.values(self.model, progress="analysis", record_outputs=told)
        if not shared:
            with self.clock.section("evaluation"):
                split = self.workload.batches("train", batch_size=self.workload.examples_at_once)
                record_outputs(self.model, self.workload, split, record)
        losses = {f"train/{name}": value for name, value in evaluation.means().items()}
        return {**losses, **{key: value for _, values in others for key, value in values().items()}, **similarities}

    def _serves_both(self) -> bool:
        if self.analysis is None or self.config.precision != "float32":
            return False
        return len(self.analysis.ids) == len(self.workload.ids("train"))

    def line(self, epoch: int, values: Mapping[str, float]) -> str:  # noqa: ARG002
        if "train/loss" not in values:
            return ""
        found = [values[f"{site}/agop_nfm"] for site in self.sites if f"{site}/agop_nfm" in values]
        similarities = " ".join(f"{value:.3f}" for value in found[:SHOWN]) + (" …" if len(found) > SHOWN else "")
        return f"train {values['train/loss']:.4g}  val {values['val/loss']:.4g}  AGOP/NFM {similarities}"

    def finish(self, tracked: Tracked) -> None:
        """Log test metrics, write results and figures, and tag the best epoch."""
        if self.example_ids["test"]:
            with self.clock.section("evaluation"):
                self.test = evaluate_split(self.model, self.workload, "test")
            tracked.log(self.last, self.test)
        with self.clock.section("tracking"):
            self.run.metrics.flush()
            series = tracking.history(self.run.run_id)
            best = min(tracked.kept(self.schedule), key=lambda epoch: series["val/loss"][epoch])
            self.run.tag({"nfa.best_epoch": str(best)})
            conventions = self.analysis.described()["conventions"] if self.analysis else {}
            tracking.put_json(self.run.info, "results.json", report.results(series, self.sites, conventions))
            self.draw_series(series)
        if self.test:
            stage("test", ", ".join(_said(key.partition("/")[2], value) for key, value in self.test.items()))
        if self.sites:
            stage("figure", "plots/training_analysis.png and .pdf")

    def results(self) -> list[str]:
        return of_examples(self.test, len(self.example_ids["test"]))

    def draw_series(self, series: Mapping[str, Series]) -> None:
        """Draw the figures of the run."""
        if self.sites:
            loss = family(self.stored["workload"]).loss(self.stored)
            figure = report.training_figure(series, self.sites, self.title(), loss=loss)
            tracking.save_picture(self.run, figure, "training_analysis")


def _said(name: str, value: float) -> str:
    return f"{name} {value:.4g}" if name == "loss" else f"{name} {value:.4f}"


def fields_of(config: Any) -> dict[str, Any]:
    """Return the parameters for config.json, which does not mention that a run was resumed."""
    return {**dataclasses.asdict(config), "resume": ""}
