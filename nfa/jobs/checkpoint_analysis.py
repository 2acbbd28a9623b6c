"""Relations at the checkpoints of one run, in one process or with others."""

import math
from functools import cached_property
from typing import Any, Literal, cast

import torch.nn as nn

from nfa import tracking
from nfa.config import AnalyzeConfig
from nfa.console import bar, stage
from nfa.errors import Refusal
from nfa.maths.bfloat16 import has_bfloat16_units
from nfa.measures.sides import Positions
from nfa.measures.site_matrices import Conventions, SiteMeasures, choose_sites, site_weights
from nfa.observe.checks import EXAMPLES, check_model
from nfa.observe.directions import Directions
from nfa.observe.passes import Precision
from nfa.parallel import World
from nfa.relations import RELATIONS, choose_relations, needed, needs_all_directions
from nfa.studies.alignment import AlignmentOptions, alignment, conventions

MANY_OUTPUTS = 32  # up to here every output is differentiated, above it two random directions


class CheckpointAnalysis:
    """What `config` asks of the run `source`; model and data are loaded when the first value is asked for."""

    def __init__(self, source: str, config: AnalyzeConfig, world: World) -> None:
        self.source, self.config, self.world = source, config, world
        centre = config.centre if config.centre == "entry" else "none"
        self.options = AlignmentOptions(cast(Literal["none", "entry"], centre), float(config.agop_power), config.top_k)

    @cached_property
    def workload(self) -> Any:
        return tracking.load_workload(self.source, device=self.config.device, data_dir=self.config.data_dir or None)

    @cached_property
    def model(self) -> nn.Module:
        return cast(nn.Module, self.workload.model())

    @cached_property
    def sites(self) -> list[str]:
        return choose_sites(self.workload, self.model, self.config.sites)

    @cached_property
    def ids(self) -> list[int]:
        """Examples that are analysed: the first of the stored probe."""
        probe = list(self.workload.ids("probe"))
        if self.config.max_samples > len(probe):
            allowed = f"0 (all) to {len(probe)} training examples"
            raise Refusal(f"max_samples={self.config.max_samples}", allowed, "max_samples=0")
        chosen = probe[: self.config.max_samples or None]
        if len(chosen) < self.world.size:
            got = f"nproc={self.world.size} for {len(chosen)} examples"
            raise Refusal(got, "an example for each process", "nproc=1")
        return chosen

    @cached_property
    def outputs(self) -> int:
        """Network outputs of an example; the model is checked on the way."""
        batch = next(iter(self.workload.batches("train", batch_size=EXAMPLES, ids=self.ids[:EXAMPLES])))
        check_model(self.model, self.workload, batch)
        return int(self.workload.outputs(self.model, batch)[0].numel())

    @cached_property
    def directions(self) -> Directions:
        asked = self.config.directions
        if asked == "all" or (asked == "auto" and self.outputs <= MANY_OUTPUTS):
            return Directions()
        if self.config.centre == "jacobian" or self.options.agop_power != 1:
            raise Refusal(
                f"centre={self.config.centre} agop_power={self.config.agop_power} with {self.outputs} outputs, for "
                "which directions=auto takes 2 random ones",
                "centre=none or entry and agop_power=1 with random directions",
                "directions=all",
            )
        return Directions(2 if asked == "auto" else int(asked), self.config.seed)

    @cached_property
    def relations(self) -> tuple[str, ...]:
        """What was asked for, without what this run cannot have; `Refusal` where that was asked for by name."""
        reasons: dict[str, str] = {}
        for name in choose_relations(self.config.relations):
            if self.directions.count and needs_all_directions(name):
                reasons[name] = "it needs directions=all"
            elif "nfm_init_removed" in RELATIONS[name] and 0 not in tracking.epochs(self.source):
                reasons[name] = "the run has no checkpoint of epoch 0"
        typed = [name for name in reasons if name in self.config.relations.split(",")]
        if typed and self.config.relations != AnalyzeConfig.relations:
            got = f"relations={typed[0]} ({reasons[typed[0]]})"
            raise Refusal(got, "relations that this run can have", "leave it out")
        if reasons and self.world.rank == 0:
            stage("notice", "left out: " + "; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
        return tuple(name for name in choose_relations(self.config.relations) if name not in reasons)

    @cached_property
    def measured(self) -> Conventions:
        return Conventions(
            "jacobian" if self.config.centre == "jacobian" else "none",
            cast(Positions, self.config.positions),
            self.directions,
            cast(Precision, self.config.precision),
        )

    @cached_property
    def measures(self) -> SiteMeasures:
        wanted = needed(self.relations)
        initial = {}
        if "nfm_init_removed" in wanted:
            self._load(0)
            initial = site_weights(self.workload, self.model, self.sites)
        return SiteMeasures(self.workload, self.sites, wanted, self.measured, initial, self.world)

    def check(self) -> None:
        """Everything that can be refused, before any value is computed; then one line about what will be done."""
        self._load(tracking.epochs(self.source)[0])
        self.ids, self.sites, self.outputs, self.measures  # noqa: B018 - made now
        if self.world.rank:
            return
        named = ", ".join(self.sites[:6]) + (f" … ({len(self.sites)})" if len(self.sites) > 6 else "")
        stage("sites", f"{named}; {len(self.ids)} examples, {len(self.relations)} relations")
        if self.config.precision == "bfloat16" and not has_bfloat16_units(self.workload.device):
            stage("notice", "this processor has no bfloat16 units: the numbers are those of bfloat16, the speed is not")

    def described(self) -> dict[str, Any]:
        """What stands beside the values."""
        said = {**conventions(self.measured, self.options), "examples": len(self.ids)}
        return {"relations": list(self.relations), "sites": self.sites, "conventions": said}

    def values(self, epoch: int) -> dict[str, float]:
        """Relations of all sites at a checkpoint, from one pass of all processes over their parts of the examples."""
        measures = self.measures
        self._load(epoch)
        mine = self.world.share(self.ids)
        batches = self.workload.batches("train", batch_size=self.config.batch_size, ids=mine)
        total = math.ceil(len(mine) / self.config.batch_size)
        if self.world.rank == 0:
            batches = bar(batches, f"epoch {epoch}", total=total, unit="batch")
        matrices = measures(self.model, batches)
        return dict(alignment(matrices, self.relations, self.options).scalars) if self.world.rank == 0 else {}

    def _load(self, epoch: int) -> None:
        self.model.load_state_dict(tracking.weights(self.source, epoch))
