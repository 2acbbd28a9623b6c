"""The study `analyze`: its options are checked against a workload, and relations are computed for one model after
another.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, cast

import torch
import torch.nn as nn
from torch import Tensor

from nfa.analyses.parameters import AlignmentParameters
from nfa.console import bar
from nfa.errors import Refusal, reason
from nfa.maths.standard_errors import Sampling
from nfa.measures.first_examples import MOST
from nfa.measures.known_features import known_features
from nfa.measures.needed_memory import TWICE, memory_of_errors, memory_of_examples, needed_memory
from nfa.measures.sides import Positions
from nfa.measures.site_matrices import Conventions, SiteMeasures, chosen_sites, useful_readout
from nfa.memory import check_free_memory
from nfa.observe.checks import check_model
from nfa.observe.coverage import coverage
from nfa.observe.directions import Directions
from nfa.observe.door import EXAMPLES, find_sites
from nfa.observe.found_sites import Sites
from nfa.observe.inertness import doubled, inert
from nfa.observe.passes import Precision
from nfa.observe.site_shapes import site_shapes
from nfa.observe.sizes import numbers_of
from nfa.parallel import World
from nfa.plain_text import counted
from nfa.relations import RELATIONS, choose_relations, needed, with_known
from nfa.studies.alignment import AlignmentOptions, alignment, conventions
from nfa.workload import Batch, Workload

FEWER = (
    "1. leave the largest sites out by sites=!…; 2. ask for fewer relations; 3. take fewer examples by max_samples: "
    "matrices over fewer rows than half their side stay rows"
)
MANY_OUTPUTS = 32  # up to this number every output is differentiated, above it two random directions


class Analysis:
    """Measure the relations of one model after another under the same options.

    Creating one checks model and options against each other, so that nothing is refused once work has started.

    Args:
        workload: The workload.
        model: The model in any of its states.
        config: The options.
        initial: A function of site names and sites that returns the weights before the first update by site; None if
            these weights are not known.
        world: The processes that share the examples; None stands for this process alone.
        unbiased: Whether values are those with unbiased norms, for any number of the examples.

    Attributes:
        left_out: The relations that are not available here, with the reason.
        coverage: How much of the model is watched, in words.

    Raises:
        Refusal: Model and options do not fit together.
    """

    def __init__(
        self,
        workload: Workload,
        model: nn.Module,
        config: AlignmentParameters,
        initial: Callable[[list[str], Sites], Mapping[str, Tensor]] | None,
        world: World | None = None,
        *,
        unbiased: bool = False,
    ) -> None:
        self.workload, self.config, self.world = workload, config, world or World()
        centre = config.centre if config.centre == "entry" else "none"
        self.options = AlignmentOptions(
            cast(Literal["none", "entry"], centre), float(config.agop_power), config.top_k, config.chance, unbiased
        )
        self.ids = self._examples()
        self._samplings: dict[tuple[int, ...], Sampling] = {}
        self.types = ", ".join(sorted({str(one.dtype).removeprefix("torch.") for one in model.parameters()}))
        few = next(iter(workload.batches("train", batch_size=EXAMPLES, ids=self.ids[:EXAMPLES])))
        outputs = check_model(model, workload, few)
        directions = self._directions(outputs, few)
        self.found = find_sites(model, workload, few)
        self.sites = chosen_sites(workload, model, self.found, config.sites)
        self._check_centre()
        self._check_precision(model, few)
        self.coverage = coverage(model, self.found.parameters(self.sites), self.found.parameters(self.found.seen))
        self.known = known_features(workload, model, self.found)
        asked = with_known(choose_relations(config.relations), self.known, self.sites)
        self.left_out = _impossible(config.relations, asked, exact=not directions.count, start=initial is not None)
        self.relations = tuple(name for name in asked if name not in self.left_out)
        self.measured = Conventions(
            "jacobian" if config.centre == "jacobian" else "none",
            cast(Positions, config.positions),
            directions,
            cast(Precision, config.precision),
        )
        wanted = needed(self.relations, levels=config.chance)
        self._check_memory(model, few, wanted, outputs)
        weights = initial(self.sites, self.found) if initial and "nfm_init_removed" in wanted else {}
        self.population = workload.population()
        errors = config.chance and (unbiased or self.population != len(self.ids))
        readout = useful_readout(model, workload, few, self.found, wanted, self.measured)
        self.measures = SiteMeasures(
            workload, self.sites, wanted, self.measured, weights, self.world, self.found, readout, errors
        )

    def _examples(self) -> list[int]:
        """Return the first examples of the stored probe."""
        probe = list(self.workload.ids("probe"))
        if self.config.max_samples > len(probe):
            allowed = f"0 (all) to {counted(len(probe), 'example')}"
            raise Refusal(f"max_samples={self.config.max_samples}", allowed, "max_samples=0")
        chosen = probe[: self.config.max_samples or None]
        if len(chosen) < self.world.size:
            got = f"nproc={self.world.size} for {counted(len(chosen), 'example')}"
            raise Refusal(got, "at least one example for each process", "nproc=1")
        return chosen

    def _check_centre(self) -> None:
        picked = [name for name in self.sites if self.found.seen[name].place is None]
        if picked and self.config.centre == "jacobian":
            got = f"centre=jacobian for site {picked[0]!r}, whose rows a router picks, so that no position is shared"
            raise Refusal(got, "centre=none or entry", f"centre=none, or sites=!{picked[0]}")

    def _check_precision(self, model: nn.Module, few: Batch) -> None:
        """Check that a copy of the model runs in float64, where that is asked for."""
        if self.config.precision != "float64":
            return
        try:
            with inert(model), torch.no_grad():
                self.workload.outputs(doubled(model), few.double())
        except Exception as error:  # some kernels exist for float32 only, and some attributes cannot be copied
            got = f"precision=float64 for a model that cannot be copied and run in float64 ({reason(error)})"
            raise Refusal(got, "precision=float32 or bfloat16 for this model", "precision=float32") from error

    def _directions(self, outputs: int, few: Batch) -> Directions:
        if few.present is not None and self.config.centre == "jacobian":
            got = "centre=jacobian for examples of different lengths, which have no position or output in common"
            raise Refusal(got, "centre=none or entry", "centre=none")
        asked = self.config.directions
        if asked == "all" or (asked == "auto" and outputs <= MANY_OUTPUTS):
            return Directions()
        if self.config.centre == "jacobian" or self.options.agop_power != 1:
            raise Refusal(
                f"centre={self.config.centre} agop_power={self.config.agop_power} with {outputs} outputs, for which "
                "directions=auto uses 2 random ones",
                "centre=none or entry and agop_power=1 with random directions",
                "directions=all",
            )
        return Directions(2 if asked == "auto" else int(asked), self.config.seed)

    def _check_memory(self, model: nn.Module, few: Batch, wanted: frozenset[str], outputs: int) -> None:
        """Raise `Refusal` where the matrices of all sites need more memory than is free."""
        width, n = 8 if self.config.precision == "float64" else 4, -(-len(self.ids) // self.world.size)
        shapes = site_shapes(model, self.workload, few, self.found, self.sites)
        needed = needed_memory(shapes, wanted, n, self.measured.directions.count, width=width)
        passes = self.measured.directions.count or outputs
        stored = wanted if self.config.chance else wanted & ({"agop"} if self.measured.directions.count else set())
        needed["single examples"] = TWICE * memory_of_examples(shapes, stored, n, passes, width=width)
        needed["standard errors"] = memory_of_errors(shapes) if self.config.chance else 0.0
        needed["one batch"] = float(width * numbers_of(model, self.workload, few) * min(n, self.batch_size))
        device = next((one.device for one in model.parameters()), torch.device("cpu"))
        each = self.world.size if device.type == "cpu" else 1
        what = f"the matrices of {counted(len(self.sites), 'site')} for {counted(len(self.ids), 'example')}"
        check_free_memory({name: each * of for name, of in needed.items()}, device, what, FEWER)

    def notices(self) -> Iterator[str]:
        """Yield what is left out, and why."""
        if self.left_out:
            yield "left out: " + "; ".join(f"{name}: {reason}" for name, reason in self.left_out.items())
        if self.config.chance and self.population == len(self.ids) and not self.options.unbiased:
            every = f"all {self.population:,} training examples are measured"
            yield f"{every}, so there is no sampling error; runs with other seeds give an interval"

    def described(self) -> dict[str, Any]:
        """Return relations, sites, coverage and conventions, to be stored beside the values."""
        said = {**conventions(self.measured, self.options), "examples": len(self.ids), "weights": self.types}
        asked = {"relations": list(self.relations), "sites": self.sites, "coverage": self.coverage}
        return {**asked, "conventions": said}

    def values(
        self, model: nn.Module, *, progress: str = "", record_outputs: Callable[[Tensor, Batch], None] | None = None
    ) -> dict[str, float]:
        """Compute the relations of all sites in one pass; every process measures its part of the examples.

        Args:
            model: The model.
            progress: The label of a progress bar; empty shows none.
            record_outputs: A function that receives each batch's outputs.

        Returns:
            The values by metric key; empty in all processes but the first.
        """
        return self.prefixes(model, [len(self.ids)], progress=progress, record_outputs=record_outputs)[-1]

    def prefixes(
        self,
        model: nn.Module,
        sizes: Sequence[int],
        *,
        progress: str = "",
        record_outputs: Callable[[Tensor, Batch], None] | None = None,
    ) -> list[dict[str, float]]:
        """Compute the relations on the first examples, for several numbers of examples in one pass.

        Args:
            model: The model.
            sizes: The numbers of examples in ascending order.
            progress: The label of a progress bar; empty shows none.
            record_outputs: A function that receives each batch's outputs.

        Returns:
            The values by metric key for each number; empty in all processes but the first.
        """
        parts = [self.ids[start:stop] for start, stop in pairwise([0, *sizes])]
        shown = bool(progress) and not self.world.rank
        batches = [self._batches(self.world.shard(part), progress if shown else "") for part in parts]
        stages = self.measures.prefixes(model, batches, record_outputs=record_outputs)
        if self.world.rank:
            return [{} for _ in sizes]
        found = []
        for matrices, count in zip(stages, sizes[-len(stages) :], strict=True):
            sampling = self._sampling(parts[: sizes.index(count) + 1]) if self.config.chance else None
            found.append(dict(alignment(matrices, self.relations, self.options, self.known, sampling).scalars))
        return found

    @property
    def batch_size(self) -> int:
        """The largest number of examples at a time."""
        return min(self.config.batch_size, self.workload.examples_at_once)

    def _batches(self, ids: Sequence[int], progress: str) -> Iterable[Batch]:
        batches = self.workload.batches("train", batch_size=self.batch_size, ids=ids)
        total = math.ceil(len(ids) / self.batch_size)
        return bar(batches, progress, total=total, unit="batch") if progress else batches

    def _sampling(self, parts: Sequence[Sequence[int]]) -> Sampling:
        """Return how the examples of these parts were drawn; every process has a share of each part."""
        key = tuple(map(len, parts))
        if key not in self._samplings:
            worlds = [World(rank, self.world.size) for rank in range(self.world.size)]
            ids = [one for world in worlds for part in parts for one in world.shard(list(part))]
            self._samplings[key] = sampling_of(self.workload, ids, self.population)
        return self._samplings[key]


def sampling_of(workload: Workload, ids: Sequence[int], population: int | None) -> Sampling:
    """Return how examples were drawn, with the classes of those whose rows are stored.

    Args:
        workload: The workload.
        ids: The examples in the order of the analysis, together the first of the workload's probe.
        population: The number of examples that they were drawn from; None if it is not known.

    Returns:
        The sampling.
    """
    n = len(ids)
    if n > workload.stratified():
        return Sampling(n, population)
    batches = workload.batches("train", batch_size=MOST, ids=ids[:MOST])
    classes = [None if found is None else found.cpu() for found in map(workload.classes, batches)]
    known = [part for part in classes if part is not None]
    if len(known) < len(classes):
        return Sampling(n, population)
    strata = torch.full((n,), -1)
    strata[:MOST] = torch.cat(known)
    return Sampling(n, population, strata)


def _impossible(text: str, relations: Sequence[str], *, exact: bool, start: bool) -> dict[str, str]:
    """Return the relations that are not available, with the reason; `Refusal` for one that `text` names in full."""
    reasons = {}
    for name in relations:
        if not exact and RELATIONS[name].needs_all_outputs:
            reasons[name] = "it needs directions=all"
        elif not start and "nfm_init_removed" in RELATIONS[name].matrices:
            reasons[name] = "there is no checkpoint 0"
    typed = [name for name in reasons if name in text.split(",")]
    if typed and text != AlignmentParameters.relations:
        raise Refusal(f"relations={typed[0]} ({reasons[typed[0]]})", "relations available here", "leave it out")
    return reasons
