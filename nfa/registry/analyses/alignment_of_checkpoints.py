"""Relations at the checkpoints of one stored run."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nfa.analyses.alignment import Analysis
from nfa.console import stage
from nfa.maths.bfloat16 import has_bfloat16_units
from nfa.observe.found import Sites
from nfa.observe.passes import site_weights
from nfa.parallel import World
from nfa.registry import stored_runs, tracking
from nfa.registry.analyses.config import AnalyzeConfig
from nfa.registry.tracking import TrackedRun


class CheckpointAnalysis:
    """What `config` asks of a run; making one loads the data and refuses what its epoch `first` cannot give."""

    def __init__(self, source: str, config: AnalyzeConfig, world: World, first: int) -> None:
        self.source, self.world, self.unit = source, world, tracking.unit(source)
        self.workload = stored_runs.load_workload(source, device=config.device, data_dir=config.data_dir or None)
        self.model = self.workload.model()
        initial = self._initial if 0 in tracking.epochs(source) else None
        self._load(first)
        self.analysis = Analysis(self.workload, self.model, config, initial, world)
        self._announced = bool(world.rank)

    def described(self) -> Mapping[str, Any]:
        """Relations, sites and conventions."""
        return self.analysis.described()

    def values(self, epoch: int, run: TrackedRun) -> dict[str, float]:  # noqa: ARG002 - there are no arrays
        """Relations of all sites at a checkpoint, measured by all processes."""
        self.world.broadcast(epoch)
        return self.measure(epoch)

    def measure(self, epoch: int) -> dict[str, float]:
        """This process's part of it; the values in the first process."""
        if not self._announced:
            self._announced = True
            self._announce()
        self._load(epoch)
        return self.analysis.values(self.model, progress=f"{self.unit} {epoch}")

    def _initial(self, names: list[str], sites: Sites) -> Mapping[str, Tensor]:
        self._load(0)
        return site_weights(self.workload, self.model, names, sites)

    def _load(self, epoch: int) -> None:
        stored_runs.load_weights(self.model, self.source, epoch)

    def _announce(self) -> None:
        asked = self.analysis
        named = ", ".join(asked.sites[:6]) + (f" … ({len(asked.sites)})" if len(asked.sites) > 6 else "")
        stage("sites", f"{named}; {len(asked.ids):,} examples, {len(asked.relations)} relations")
        if asked.left_out:
            stage("notice", "left out: " + "; ".join(f"{name}: {reason}" for name, reason in asked.left_out.items()))
        if asked.config.precision == "bfloat16" and not has_bfloat16_units(self.workload.device):
            stage("notice", "this processor has no bfloat16 units: the numbers are those of bfloat16, the speed is not")
