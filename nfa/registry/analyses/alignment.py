"""Alignment analysis of stored runs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from nfa.console import muted
from nfa.errors import Refusal
from nfa.parallel import World
from nfa.registry.analyses import alignment_report, seed_groups
from nfa.registry.analyses.alignment_of_checkpoints import CheckpointAnalysis
from nfa.registry.analyses.config import AnalyzeConfig
from nfa.registry.analyses.stored import analyse, asked_epochs
from nfa.registry.launch import launch
from nfa.registry.tracking import TrackedRun
from nfa.relations import choose_relations

HOW = {"run_id", "epochs", "batch_size", "nproc", "output_dir", "data_dir", "device", "run_name"}  # decide no value


def analyze(config: AnalyzeConfig) -> None:
    """Analyse the runs of `config.run_id`; with nproc > 1 this process only starts the others and waits for them."""
    if config.nproc > 1 and not World.launched():
        launch("analyze", config.nproc)
        return
    world = World.joined()
    try:
        if world.rank:
            _assist(config, world)
        else:
            analyse(Alignment(config, world))
            world.broadcast(None)
    finally:
        world.close()


def _assist(config: AnalyzeConfig, world: World) -> None:
    """Measure this process's part of the examples wherever the first process does."""
    analysis: CheckpointAnalysis | None = None
    refusal: Refusal | None = None
    while (task := world.broadcast(None)) is not None:
        if isinstance(task, tuple):
            source, first = task
            try:
                with muted():  # what is to be said of the run is said by the first process
                    analysis = CheckpointAnalysis(source, config, world, first)
            except Refusal as refused:
                refusal = refused  # the first process refuses too: it says so and ends, and how it ends counts
        elif refusal:
            raise refusal
        else:
            assert analysis
            analysis.measure(task)


class Alignment:
    """The kind of analysis that `analyze` makes."""

    entrypoint, title = "analyze", "analysis"

    def __init__(self, config: AnalyzeConfig, world: World) -> None:
        self.config, self.world = config, world

    def epochs(self, existing: Sequence[int]) -> list[int]:
        """All, or those asked for."""
        return asked_epochs(self.config.epochs, existing)

    def identity(self, epochs: Sequence[int]) -> Mapping[str, Any]:  # noqa: ARG002 - each stands alone
        """Every option that decides a value."""
        asked = {name: value for name, value in dataclasses.asdict(self.config).items() if name not in HOW}
        return {**asked, "relations": choose_relations(self.config.relations)}

    def files(self, epoch: int, unit: str) -> list[str]:  # noqa: ARG002 - a checkpoint's values are all there is
        """None."""
        return []

    def space(self, epochs: Sequence[int]) -> int:  # noqa: ARG002 - there are no arrays
        """Nothing beside the reports."""
        return 0

    def open(self, source: str, epochs: Sequence[int]) -> CheckpointAnalysis:
        """Load the run's workload, here and in the processes that help."""
        self.world.broadcast((source, epochs[0]))
        return CheckpointAnalysis(source, self.config, self.world, epochs[0])

    def line(self, values: Mapping[str, float]) -> str:
        """The first relation of each site."""
        return alignment_report.line(values)

    def report(self, run: TrackedRun, title: str) -> None:
        """Tables and figures of one run."""
        alignment_report.report(run, title)

    def compare(self, run: TrackedRun, parts: Mapping[str, str], sources: Mapping[str, str]) -> None:
        """Tables and figures of several."""
        alignment_report.compare(run, parts)
        seed_groups.compare_groups(run, parts, sources)
