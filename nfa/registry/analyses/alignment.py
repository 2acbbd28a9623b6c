"""Alignment of weights, representations and gradients at the checkpoints of stored runs."""

import math
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nfa.analyses.accuracy import Widest, search, widest_of
from nfa.console import muted, stage
from nfa.errors import Refusal
from nfa.parallel import World
from nfa.plain_text import counted
from nfa.registry import stored_runs, tracking
from nfa.registry.analyses import alignment_report, seed_groups
from nfa.registry.analyses.config import AnalyzeConfig
from nfa.registry.analyses.stored import (
    UNDECISIVE,
    AnalysisPlan,
    OpenedRun,
    StoredAnalysis,
    analyse,
    workload_of,
)
from nfa.registry.analyses.titles import subject_of
from nfa.registry.importing import importing
from nfa.registry.launch import launch
from nfa.registry.tracking import TrackedRun
from nfa.registry.tracking.sources import DONE
from nfa.relations import choose_relations

if TYPE_CHECKING:
    from torch import Tensor

    from nfa.observe.found_sites import Sites

ACCURACY = "accuracy"  # in config.json: the number of examples that target_se needs


def analyze(config: AnalyzeConfig) -> None:
    """Analyse the runs of `config.run_id`; with nproc > 1, start the processes and wait for them."""
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
    """Measure this process's share of the examples at every checkpoint that the first process measures."""
    analysis: AlignmentOfRun | None = None
    refusal: Refusal | None = None
    while (task := world.broadcast(None)) is not None:
        if isinstance(task, tuple):
            source, first = task
            try:
                with muted():  # the first process prints the messages about the run
                    analysis = AlignmentOfRun(source, config, world, first)
            except Refusal as refused:
                refusal = refused  # the first process raises the same refusal and reports it
        elif refusal:
            raise refusal
        else:
            assert analysis
            analysis.measure(*task.values())


class Alignment(StoredAnalysis):
    """The analysis of the entry point `analyze`."""

    entrypoint, title, followed_by = "analyze", "analysis", "gradient_directions"
    pictures = ("seed_comparison", "run_comparison", "enhanced_analysis", "all_relations")
    undecisive = UNDECISIVE | {"epochs", "batch_size", "nproc"}

    def __init__(self, config: AnalyzeConfig, world: World) -> None:
        super().__init__(config)
        self.world = world

    def identity(self, epochs: Sequence[int]) -> Mapping[str, Any]:
        """Return what affects the values; under target_se the number of examples depends on all checkpoints."""
        together = {"epochs": list(epochs)} if self.config.target_se else {}
        return {**super().identity(epochs), **together, "relations": choose_relations(self.config.relations)}

    def begin(self, opened: OpenedRun, plan: AnalysisPlan, run: TrackedRun) -> None:
        """Choose the number of examples under target_se, or take that of an earlier analysis that was stopped."""
        assert isinstance(opened, AlignmentOfRun)
        if not self.config.target_se:
            return
        if plan.earlier.values:
            opened.take(plan.earlier.described[ACCURACY])
        else:
            opened.choose(plan.epochs)
        run.log_params({"max_samples": opened.accuracy["examples"]})

    def open(self, source: str, epochs: Sequence[int]) -> "AlignmentOfRun":
        """Load the run's workload in this process and in the others."""
        self.world.broadcast((source, epochs[0]))
        return AlignmentOfRun(source, self.config, self.world, epochs[0])

    def line(self, values: Mapping[str, float]) -> str:
        return alignment_report.line(values)

    def report(self, run: TrackedRun, title: str) -> None:
        alignment_report.report(run, title)

    def compare(self, run: TrackedRun, parts: Mapping[str, str], sources: Mapping[str, str]) -> None:
        alignment_report.compare(run, parts, subject_of(list(sources.values())))
        seed_groups.compare_groups(run, parts, sources)


class AlignmentOfRun(OpenedRun):
    """The measurement of one run as `config` asks for it. Creating it loads the data and checks epoch `first`."""

    def __init__(self, source: str, config: AnalyzeConfig, world: World, first: int) -> None:
        with importing():  # PyTorch, which is needed only for what has to be measured
            from nfa.analyses.alignment import Analysis

        self.source, self.world, self.unit, self.target = source, world, tracking.unit(source), config.target_se
        self.accuracy: dict[str, Any] = {}  # what a search for the number of examples has found
        self.found: Mapping[int, Mapping[str, float]] = {}
        self.workload = workload_of(source, config)
        self.model = self.workload.model()
        initial = self._initial if 0 in tracking.epochs(source) else None
        self._load(first)
        self.analysis = Analysis(self.workload, self.model, config, initial, world, unbiased=bool(self.target))
        self._announced = bool(world.rank)
        self._measured = 0  # checkpoints

    def described(self) -> Mapping[str, Any]:
        """Relations, sites and conventions, and what a search for the number of examples has found."""
        return {**self.analysis.described(), **({ACCURACY: self.accuracy} if self.accuracy else {})}

    def values(self, epoch: int, run: TrackedRun) -> dict[str, float]:  # noqa: ARG002 - there are no arrays
        """Return the relations of all sites at a checkpoint, measured by all processes together."""
        if epoch in self.found:
            return dict(self.found[epoch])
        return self._together(epoch, [len(self.analysis.ids)])[-1]

    def _together(self, epoch: int, sizes: list[int]) -> list[dict[str, float]]:
        self.world.broadcast({"epoch": epoch, "sizes": sizes})
        return self.measure(epoch, sizes)

    def measure(self, epoch: int, sizes: Sequence[int]) -> list[dict[str, float]]:
        """Measure this process's share of the first examples, for each of the numbers; values in the first process."""
        if not self._announced:
            self._announced = True
            self._announce()
        self._load(epoch)
        self._measured += 1
        examples = f", {sizes[-1]:,} examples" if self.target else ""
        return self.analysis.prefixes(self.model, sizes, progress=f"{self.unit} {epoch}{examples}")

    def flops(self) -> float | None:
        """Return the operations of a checkpoint; under target_se examples are measured several times, and none are
        known.
        """
        if self.target or not self._flops:
            return None
        return self._flops[0 if self._measured == 1 else 1]

    @cached_property
    def _flops(self) -> tuple[float, float] | None:
        from nfa.registry.analyses.flops import alignment_flops

        return alignment_flops(self.analysis, self.model)

    def choose(self, epochs: Sequence[int]) -> None:
        """Find the number of examples that target_se needs; the values measured with it are kept."""
        most, population = len(self.analysis.ids), self.analysis.population
        seconds: dict[int, float] = {}

        def measured(epoch: int, before: int, now: int) -> tuple[Mapping[str, float], Mapping[str, float]]:
            start = time.perf_counter()
            found = self._together(epoch, [before, now])
            seconds[epoch] = time.perf_counter() - start
            said = _width(widest_of(found[-1], epoch, complete=now == population))
            stage("accuracy", f"{now:,} examples, {self.unit} {epoch}: {said}")
            return found[0], found[-1]

        chosen = search(measured, epochs, target=self.target, most=most, population=population)
        widest = chosen.widest
        se = widest.se if math.isfinite(widest.se) else None
        largest = {"relation": widest.key, self.unit: widest.step, "standard_error": se}
        self.take({"examples": chosen.examples, "reached": chosen.reached, "largest": largest})
        self.found = {epoch: {**values, DONE: seconds[epoch]} for epoch, values in chosen.values.items()}
        reached = "reached" if chosen.reached else "not reached"
        said = f"{chosen.examples:,} of {most:,}; target_se={self.target:g} is {reached}"
        why = f": {_width(widest)} at {self.unit} {widest.step}" if widest.key else ""
        stage("examples", said + why)

    def take(self, accuracy: Mapping[str, Any]) -> None:
        """Measure with the number of examples that a search has found."""
        self.accuracy = dict(accuracy)
        self.analysis.ids = self.analysis.ids[: self.accuracy["examples"]]

    def _initial(self, names: list[str], sites: "Sites") -> "Mapping[str, Tensor]":
        from nfa.observe.passes import site_weights

        self._load(0)
        return site_weights(self.workload, self.model, names, sites)

    def _load(self, epoch: int) -> None:
        stored_runs.load_weights(self.model, self.source, epoch, self.workload)

    def _announce(self) -> None:
        from nfa.maths.bfloat16 import has_bfloat16_units

        asked = self.analysis
        named = ", ".join(asked.sites[:6]) + (f" … ({len(asked.sites)})" if len(asked.sites) > 6 else "")
        stage("sites", f"{named}; {counted(len(asked.ids), 'example')}, {counted(len(asked.relations), 'relation')}")
        for notice in asked.notices():
            stage("notice", notice)
        if asked.config.precision == "bfloat16" and not has_bfloat16_units(self.workload.device):
            stage("notice", "this processor has no bfloat16 units: bfloat16 rounds the results but saves no time")


def _width(widest: Widest) -> str:
    """Return the largest standard error in words."""
    if not widest.se:
        return "no sampling error, because all training examples are measured"
    if not math.isfinite(widest.se):
        return f"{widest.key} has no standard error, because a few examples decide or their variance is unknown"
    return f"largest standard error {widest.se:.2g}, {widest.key}"
