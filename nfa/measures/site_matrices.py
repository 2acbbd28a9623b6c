"""The matrices of every analysed site at one checkpoint, from one pass over the data."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any

import torch.nn as nn
from torch import Tensor

from nfa.errors import Refusal
from nfa.maths.float32_products import full_float32
from nfa.maths.standard_errors import Matrix
from nfa.measures.agop import Agop, JacobianCentre
from nfa.measures.agop_estimate import AgopEstimate
from nfa.measures.fact import Fact
from nfa.measures.first_examples import MOST
from nfa.measures.nfm import nfm, nfm_init_removed
from nfa.measures.second_moments import GradientMoment, InputMoment, KnownMoment, OutputMoment
from nfa.measures.sides import Positions
from nfa.measures.slopes import slopes_cost_less
from nfa.observe.directions import Directions
from nfa.observe.door import few_of, find_sites
from nfa.observe.found_sites import Sites
from nfa.observe.inertness import doubled
from nfa.observe.name_patterns import matching
from nfa.observe.passes import Precision, observe
from nfa.observe.readouts import Readout, find_readout
from nfa.parallel import World
from nfa.workload import Batch, Workload

SLOW = "study directions or flow, which accept any model"
MEASURED = frozenset({"agop", "g", "out_g", "h", "fact", "out_h"})  # the others follow from the weights alone
SiteMatrices = dict[str, dict[str, Matrix]]


@dataclass(frozen=True)
class Conventions:
    """How matrices are measured; whatever differs between papers is an option here and is logged with the values.

    Args:
        centre: "jacobian" subtracts the mean Jacobian from J in AGOP.
        positions: "each" adds up the outer products of all positions; "sum" takes the outer product of their sum.
        directions: Which output directions are differentiated.
        precision: The type in which products are computed.
    """

    centre: JacobianCentre = "none"
    positions: Positions = "each"
    directions: Directions = Directions()
    precision: Precision = "float32"


@dataclass
class SiteMeasures:
    """Measure the wanted matrices of some sites, one checkpoint of a run after another.

    H of a site whose input depends on no trainable parameter is measured once.

    Args:
        workload: The workload.
        sites: The names of the sites.
        wanted: The names of the matrices (keys of nfa.relations.MATRICES).
        conventions: How they are measured.
        initial: The weights before the first update by site; only nfm_init_removed needs them.
        world: The processes that share the data.
        found: The sites of the model that have been found before; None looks for them, and for the readout.
        readout: The readout that has been found with them.
        errors: Whether matrices of the first examples are stored, from which standard errors follow.
        share: The share of the examples that are measured, in a trial of a few of them, which does what all would do.
    """

    workload: Workload
    sites: Sequence[str]
    wanted: frozenset[str]
    conventions: Conventions = Conventions()
    initial: Mapping[str, Tensor] = field(default_factory=dict)
    world: World = field(default_factory=World)
    found: Sites | None = None
    readout: Readout | None = None
    errors: bool = False
    share: Fraction = Fraction(1)
    _known_inputs: dict[str, KnownMoment] = field(default_factory=dict, init=False)

    def __call__(
        self,
        model: nn.Module,
        batches: Iterable[Batch],
        *,
        record_outputs: Callable[[Tensor, Batch], None] | None = None,
    ) -> SiteMatrices:
        """Measure all sites and matrices in one pass over the batches, if any of them needs one; the model does not
        change.

        Args:
            model: The model at this checkpoint.
            batches: The batches.
            record_outputs: A function that receives each batch's outputs.

        Returns:
            The matrices by site and name.

        Raises:
            Refusal: A site cannot be observed.
        """
        return self.prefixes(model, [batches], record_outputs=record_outputs)[-1]

    @full_float32()
    def prefixes(
        self,
        model: nn.Module,
        parts: Sequence[Iterable[Batch]],
        *,
        record_outputs: Callable[[Tensor, Batch], None] | None = None,
    ) -> list[SiteMatrices]:
        """Measure the first part of the batches, the first two, and so on, all in one pass.

        Args:
            model: The model at this checkpoint.
            parts: The batches of each part.
            record_outputs: A function that receives each batch's outputs.

        Returns:
            The matrices by site and name, after each part.

        Raises:
            Refusal: A site cannot be observed.
        """
        self.found = self.found or self._look(model)
        if not (record_outputs or self.wanted & MEASURED):
            parts = [[few_of(self.workload)]]
        if len(parts) > 1:
            self.forget()  # an input that is the same in the first batch is not the same in every prefix
        made: dict[str, tuple[Tensor, dict[str, Any]]] = {}
        stages = [made]

        def make(name: str, weight: Tensor) -> list[Any]:
            made[name] = weight, self._measures(name, weight)
            return list(made[name][1].values())

        def batches() -> Iterator[Batch]:
            for place, part in enumerate(parts):
                if place:
                    stages.insert(-1, copy.deepcopy(made))
                yield from (batch.double() for batch in part) if doubling else part

        doubling = self.conventions.precision == "float64"

        observe(
            doubled(model) if doubling else model,
            self.workload,
            batches(),
            {name: partial(make, name) for name in self.sites},
            sites=self.found,
            precision=self.conventions.precision,
            directions=self.conventions.directions,
            readout=self.readout,
            record_outputs=record_outputs,
        )
        found = [{name: self._values(name, *stage[name]) for name in self.sites if name in stage} for stage in stages]
        if len(parts) > 1:
            self.forget()
        return found

    def forget(self) -> None:
        """Forget inputs that are the same at every checkpoint, because other examples follow."""
        self._known_inputs.clear()

    def _look(self, model: nn.Module) -> Sites:
        """Return the sites of the model, and keep its readout."""
        few = few_of(self.workload)
        found = find_sites(model, self.workload, few)
        self.readout = useful_readout(model, self.workload, few, found, self.wanted, self.conventions)
        return found

    def _measures(self, name: str, weight: Tensor) -> dict[str, Any]:
        wanted = self.wanted
        common: Any = {"positions": self.conventions.positions, "keep": MOST if self.errors else 0}
        made: dict[str, Any] = {}
        if "agop" in wanted:
            made["agop"] = self._agop(name, weight, **common)
        if {"g", "out_g"} & wanted:
            made["g"] = GradientMoment(weight, output_side="out_g" in wanted, share=self.share, **common)
        if "h" in wanted:
            made["h"] = InputMoment(weight, known=self._known_inputs.get(name), share=self.share, **common)
        if "fact" in wanted:
            made["fact"] = Fact(weight, **common)
        if "out_h" in wanted:
            made["out_h"] = OutputMoment(weight, share=self.share, **common)
        return made

    def _agop(self, name: str, weight: Tensor, *, positions: Positions, keep: int) -> Agop | AgopEstimate:
        if count := self.conventions.directions.count:
            return AgopEstimate(weight, count, positions=positions)
        slopes = self.conventions.centre == "none" and self._by_slopes(name, weight)
        return Agop(weight, centre=self.conventions.centre, positions=positions, keep=keep, slopes=slopes)

    def _by_slopes(self, name: str, weight: Tensor) -> bool:
        """Tell whether one product of slopes and the test of them cost less than products for all directions."""
        if self.readout is None or name not in self.readout.behind:
            return False
        o, i = weight.shape
        return slopes_cost_less(o, i, self.readout.passes)

    def _values(self, name: str, weight: Tensor, measures: Mapping[str, Any]) -> dict[str, Matrix]:
        for measure in measures.values():
            measure.reduce(self.world)
        if "h" in measures and (remembered := measures["h"].remembered()):
            self._known_inputs[name] = remembered
        found: dict[str, Matrix] = {key: measure.value() for key, measure in measures.items() if key in self.wanted}
        if "out_g" in self.wanted:
            found["out_g"] = measures["g"].output_side()
        if "nfm" in self.wanted:
            found["nfm"] = nfm(weight)
        if "out_m" in self.wanted:
            found["out_m"] = nfm(weight.T)
        if "nfm_init_removed" in self.wanted:
            found["nfm_init_removed"] = nfm_init_removed(weight, self.initial[name].to(weight))
        return found


def useful_readout(
    model: nn.Module, workload: Workload, few: Batch, sites: Sites, wanted: frozenset[str], conventions: Conventions
) -> Readout | None:
    """Return the readout of a model, where AGOP of all outputs is wanted, for which it saves passes.

    Args:
        model: The model.
        workload: The workload.
        few: A few examples.
        sites: The sites that were found in the model.
        wanted: The names of the matrices.
        conventions: How they are measured.

    Returns:
        The readout; None where there is none that saves anything.
    """
    if "agop" not in wanted or conventions.directions.count:
        return None
    return find_readout(model, workload, few, sites)


def chosen_sites(workload: Workload, model: nn.Module, sites: Sites, pattern: str = "") -> list[str]:
    """Return the names of the sites that a pattern matches (`nfa.observe.name_patterns`).

    Args:
        workload: The workload.
        model: The model.
        sites: The sites that were found in the model.
        pattern: Comma-separated names, globs, !glob and /regex/; empty chooses all sites but the readout.

    Returns:
        The names of the sites.

    Raises:
        Refusal: The model has no observable site, or the pattern leaves none or names one that cannot be observed.
    """
    if not sites.seen and not sites.unseen:
        raise Refusal("a model in which no product with a weight is recorded", "layers that multiply by a weight", SLOW)
    if not sites.seen:
        got, allowed, _ = next(iter(sites.unseen.values()))
        raise Refusal(f"{got}; no other site can be observed", allowed, SLOW)
    fitting = matching(pattern or "*", [*sites.seen, *sites.unseen])
    sites.check(name for name in fitting if name in sites.never)
    if not fitting:
        got = f"sites={pattern}, which excludes every site"
        raise Refusal(got, ", ".join(sites.seen), "exclude fewer sites, or name some")
    if not pattern:
        last = sites.last if "" in workload.sites(model) else None  # a family names its own readout
        readout = (workload.readout(model) or last) if len(sites.seen) > 1 else None
        chosen = [name for name, site in sites.seen.items() if name != readout and not site.inside]
    else:
        typed = [part.strip() for part in pattern.split(",")]
        named = [name for name in fitting if name in sites.seen or name in typed]
        chosen = [name for name in named if name in typed or not sites.is_inside(name)] or named
    sites.check(chosen or fitting[:1])
    return chosen
