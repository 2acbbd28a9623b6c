"""Gradient flow of stored runs."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from nfa.console import stage
from nfa.registry import stored_runs, tracking
from nfa.registry.analyses import gradient_flow_comparison, gradient_flow_report
from nfa.registry.analyses.config import GradientFlowConfig
from nfa.registry.analyses.stored import UNDECISIVE, OpenedRun, StoredAnalysis, analyse, workload_of
from nfa.registry.families.registry import family_of_run
from nfa.registry.importing import importing
from nfa.registry.tracking import TrackedRun


def gradient_flow(config: GradientFlowConfig) -> None:
    """Analyse the runs of `config.run_id`; compare them if there are several."""
    analyse(GradientFlow(config))


class GradientFlow(StoredAnalysis):
    """The analysis of the entry point `gradient_flow`."""

    entrypoint, title, followed_by = "gradient_flow", "gradient flow", "analyze"
    pictures = ("gradient_flow_comparison", "gradient_flow_ratios", "gradient_flow_map")
    undecisive = UNDECISIVE | {"epochs", "batch_size", "seed"}

    def open(self, source: str, epochs: Sequence[int]) -> "FlowOfRun":
        return FlowOfRun(source, self.config, epochs)

    def line(self, values: Mapping[str, float]) -> str:
        return gradient_flow_report.line(values)

    def report(self, run: TrackedRun, title: str) -> None:
        gradient_flow_report.report(run, title)

    def compare(self, run: TrackedRun, parts: Mapping[str, str], sources: Mapping[str, str]) -> None:
        gradient_flow_comparison.compare(run, parts, sources, seed=self.config.seed)


class FlowOfRun(OpenedRun):
    """The measurement of the run `source` as `config` asks for it. Creating it loads and checks the data."""

    def __init__(self, source: str, config: GradientFlowConfig, epochs: Sequence[int]) -> None:
        with importing():  # PyTorch, which is needed only for what has to be measured
            from nfa.analyses.gradient_flow import FlowAnalysis

        self.source, self.unit = source, tracking.unit(source)
        self.workload = workload = workload_of(source, config)
        self.model = workload.model()
        start = stored_runs.weights(source, 0) if 0 in tracking.epochs(source) else None
        stored_runs.load_weights(self.model, source, epochs[0], workload)
        self.analysis = FlowAnalysis(workload, self.model, config, start)
        quality = family_of_run(tracking.find_run(source).data.tags).quality
        copied = quality.key if quality else ""
        logged = tracking.history(source).items()
        self.logged = {key: of_key for key, of_key in logged if key.startswith("flow/") or key == copied}
        self._announced = False

    def described(self) -> Mapping[str, Any]:
        """Groups, examples and conventions."""
        return self.analysis.described()

    def values(self, epoch: int, run: TrackedRun) -> dict[str, float]:  # noqa: ARG002 - there are no arrays
        """Return the values of a checkpoint."""
        self._announce()
        stored_runs.load_weights(self.model, self.source, epoch, self.workload)
        trained = {key: of_key[epoch] for key, of_key in self.logged.items() if epoch in of_key}
        return self.analysis(self.model, trained, moved=epoch > 0, progress=f"{self.unit} {epoch}")

    def flops(self) -> float | None:
        """Return the operations of a checkpoint, which are the same for all."""
        return self._flops

    @cached_property
    def _flops(self) -> float | None:
        from nfa.registry.analyses.flops import flow_flops

        return flow_flops(self.analysis, self.model)

    def _announce(self) -> None:
        if self._announced:
            return
        self._announced = True
        self.analysis.announce()
        if not any(key.startswith("flow/") for key in self.logged):
            stage("notice", "the training logged no updates, so update ratios and the gradient norm are not available")
        if self.analysis.start is None:
            stage("notice", "the run has no checkpoint 0, so weight changes are not available")
