"""Gradient flow at the checkpoints of one stored run."""

from collections.abc import Mapping, Sequence
from typing import Any

from nfa.analyses.gradient_flow import FlowAnalysis
from nfa.console import stage
from nfa.registry import stored_runs, tracking
from nfa.registry.analyses.config import GradientFlowConfig
from nfa.registry.tracking import TrackedRun

COPIED = ("val/pearson", "val/accuracy")


class CheckpointFlow:
    """What `config` asks of the run `source`; making one loads the data and refuses what cannot be done."""

    def __init__(self, source: str, config: GradientFlowConfig, epochs: Sequence[int]) -> None:
        self.source, self.unit = source, tracking.unit(source)
        workload = stored_runs.load_workload(source, device=config.device, data_dir=config.data_dir or None)
        self.model = workload.model()
        start = stored_runs.weights(source, 0) if 0 in tracking.epochs(source) else None
        stored_runs.load_weights(self.model, source, epochs[0])
        self.analysis = FlowAnalysis(workload, self.model, config, start)
        self.logged = {key: of_key for key, of_key in tracking.history(source).items() if _is_copied(key)}
        self._announced = False

    def described(self) -> Mapping[str, Any]:
        """Groups, examples and conventions."""
        return self.analysis.described()

    def values(self, epoch: int, run: TrackedRun) -> dict[str, float]:  # noqa: ARG002 - there are no arrays
        """Series of a checkpoint."""
        self._announce()
        stored_runs.load_weights(self.model, self.source, epoch)
        trained = {key: of_key[epoch] for key, of_key in self.logged.items() if epoch in of_key}
        return self.analysis(self.model, trained, moved=epoch > 0, progress=f"{self.unit} {epoch}")

    def _announce(self) -> None:
        if self._announced:
            return
        self._announced = True
        self.analysis.announce()
        if not any(key.startswith("flow/") for key in self.logged):
            stage(
                "notice", "the run's training has logged no updates: update ratios and gradient norm are not measured"
            )
        if self.analysis.start is None:
            stage("notice", "there is no checkpoint 0: weight changes are not measured")


def _is_copied(key: str) -> bool:
    return key.startswith("flow/") or key in COPIED
