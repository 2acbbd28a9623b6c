"""Gradient directions of stored runs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from nfa import checkpoint_schedule
from nfa.registry.analyses import gradient_directions_comparison, gradient_directions_report
from nfa.registry.analyses.config import DIRECTION_EPOCHS, GradientDirectionsConfig
from nfa.registry.analyses.gradient_arrays import paths
from nfa.registry.analyses.gradients_of_checkpoints import CheckpointGradients
from nfa.registry.analyses.stored import analyse, asked_epochs
from nfa.registry.tracking import TrackedRun

HOW = {"run_id", "output_dir", "data_dir", "device", "run_name"}  # decide no value


def gradient_directions(config: GradientDirectionsConfig) -> None:
    """Analyse the runs of `config.run_id`, and compare them where they are several."""
    analyse(GradientDirections(config))


class GradientDirections:
    """The kind of analysis that `gradient_directions` makes."""

    entrypoint, title = "gradient_directions", "gradient directions"

    def __init__(self, config: GradientDirectionsConfig) -> None:
        self.config = config

    def epochs(self, existing: Sequence[int]) -> list[int]:
        """Those asked for; of the default's those that exist, or all where none of them does."""
        if self.config.epochs != DIRECTION_EPOCHS:
            return asked_epochs(self.config.epochs, existing)
        return [epoch for epoch in checkpoint_schedule.parse(DIRECTION_EPOCHS, 0) if epoch in existing] or list(
            existing
        )

    def identity(self, epochs: Sequence[int]) -> Mapping[str, Any]:
        """Every option that decides a value; each map starts from the one before, so all epochs do."""
        asked = {name: value for name, value in dataclasses.asdict(self.config).items() if name not in HOW}
        return {**asked, "epochs": list(epochs)}

    def files(self, epoch: int, unit: str) -> list[str]:
        """The arrays of a checkpoint."""
        return [*paths(epoch, unit).values()]

    def space(self, epochs: Sequence[int]) -> int:
        """Cosine matrices in float32, and pictures."""
        return len(epochs) * (4 * self.config.units**2 + 4 * 2**20)

    def open(self, source: str, epochs: Sequence[int]) -> CheckpointGradients:
        """Load the run's workload."""
        return CheckpointGradients(source, self.config, epochs)

    def line(self, values: Mapping[str, float]) -> str:
        """The series that say most."""
        return gradient_directions_report.line(values)

    def report(self, run: TrackedRun, title: str) -> None:
        """Table and figures of one run."""
        gradient_directions_report.report(run, title)

    def compare(self, run: TrackedRun, parts: Mapping[str, str], sources: Mapping[str, str]) -> None:
        """Differences of two, series of several."""
        gradient_directions_comparison.compare(run, parts, sources)
