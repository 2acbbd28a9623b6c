"""Gradient flow of stored runs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from nfa.registry.analyses import gradient_flow_comparison, gradient_flow_report
from nfa.registry.analyses.config import GradientFlowConfig
from nfa.registry.analyses.flow_of_checkpoints import CheckpointFlow
from nfa.registry.analyses.stored import analyse, asked_epochs
from nfa.registry.tracking import TrackedRun

HOW = {"run_id", "epochs", "batch_size", "seed", "output_dir", "data_dir", "device", "run_name"}  # decide no value


def gradient_flow(config: GradientFlowConfig) -> None:
    """Analyse the runs of `config.run_id`, and compare them where they are several."""
    analyse(GradientFlow(config))


class GradientFlow:
    """The kind of analysis that `gradient_flow` makes."""

    entrypoint, title = "gradient_flow", "gradient flow"

    def __init__(self, config: GradientFlowConfig) -> None:
        self.config = config

    def epochs(self, existing: Sequence[int]) -> list[int]:
        """All, or those asked for."""
        return asked_epochs(self.config.epochs, existing)

    def identity(self, epochs: Sequence[int]) -> Mapping[str, Any]:  # noqa: ARG002 - each stands alone
        """Every option that decides a value."""
        return {name: value for name, value in dataclasses.asdict(self.config).items() if name not in HOW}

    def files(self, epoch: int, unit: str) -> list[str]:  # noqa: ARG002 - a checkpoint's values are all there is
        """None."""
        return []

    def space(self, epochs: Sequence[int]) -> int:  # noqa: ARG002 - there are no arrays
        """Nothing beside the reports."""
        return 0

    def open(self, source: str, epochs: Sequence[int]) -> CheckpointFlow:
        """Load the run's workload."""
        return CheckpointFlow(source, self.config, epochs)

    def line(self, values: Mapping[str, float]) -> str:
        """The ratios."""
        return gradient_flow_report.line(values)

    def report(self, run: TrackedRun, title: str) -> None:
        """Report and figures of one run."""
        gradient_flow_report.report(run, title)

    def compare(self, run: TrackedRun, parts: Mapping[str, str], sources: Mapping[str, str]) -> None:
        """Tables and figures of several."""
        gradient_flow_comparison.compare(run, parts, sources, seed=self.config.seed)
