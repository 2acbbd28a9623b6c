"""The matrices of every analysed site at one checkpoint, from one pass over the data."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch.nn as nn
from torch import Tensor

from nfa.errors import Refusal
from nfa.maths.congruence import Congruence
from nfa.maths.replicates import Replicates
from nfa.measures.agop import Agop, JacobianCentre
from nfa.measures.agop_estimate import AgopEstimate
from nfa.measures.nfm import nfm, nfm_init_removed
from nfa.measures.second_moments import Fact, GradientMoment, InputMoment, KnownMoment, OutputMoment
from nfa.measures.sides import Positions
from nfa.observe.capture import sites_of
from nfa.observe.directions import Directions
from nfa.observe.passes import Precision, observe
from nfa.observe.rules import site_names
from nfa.parallel import World
from nfa.protocols import Batch, Workload

Matrix: TypeAlias = Congruence | Replicates
SiteMatrices = dict[str, dict[str, Matrix]]


@dataclass(frozen=True)
class Conventions:
    """How matrices are measured; what differs between papers is an option here and is logged with every value."""

    centre: JacobianCentre = "none"
    positions: Positions = "each"
    directions: Directions = Directions()
    precision: Precision = "float32"


@dataclass
class SiteMeasures:
    """Measures the wanted matrices of some sites, checkpoint after checkpoint of one run.

    `initial` are the weights before the first update, by site; only nfm_init_removed needs them.
    H of a site whose input depends on no trainable parameter is measured once.
    """

    workload: Workload
    sites: Sequence[str]
    wanted: frozenset[str]
    conventions: Conventions = Conventions()
    initial: Mapping[str, Tensor] = field(default_factory=dict)
    world: World = field(default_factory=World)
    _known_inputs: dict[str, KnownMoment] = field(default_factory=dict, init=False)

    def __call__(
        self,
        model: nn.Module,
        batches: Iterable[Batch],
        *,
        hear_outputs: Callable[[Tensor, Batch], None] | None = None,
    ) -> SiteMatrices:
        """One pass over `batches`, for all sites and matrices, unless nothing needs it; the model is left as it was."""
        if self.conventions.precision == "float64":
            model, batches = copy.deepcopy(model).double(), (batch.double() for batch in batches)
        weights = site_weights(self.workload, model, self.sites)
        measures = {name: self._measures(name, weight) for name, weight in weights.items()}
        if any(measures.values()) or hear_outputs:
            observe(
                model,
                self.workload,
                batches,
                {name: list(of_site.values()) for name, of_site in measures.items()},
                precision=self.conventions.precision,
                directions=self.conventions.directions,
                hear_outputs=hear_outputs,
            )
        return {name: self._values(name, weight, measures[name]) for name, weight in weights.items()}

    def _measures(self, name: str, weight: Tensor) -> dict[str, Any]:
        wanted, positions = self.wanted, self.conventions.positions
        made: dict[str, Any] = {}
        if "agop" in wanted:
            made["agop"] = self._agop(weight)
        if {"g", "out_g"} & wanted:
            made["g"] = GradientMoment(weight, positions=positions, output_side="out_g" in wanted)
        if "h" in wanted:
            made["h"] = InputMoment(weight, positions=positions, known=self._known_inputs.get(name))
        if "fact" in wanted:
            made["fact"] = Fact(weight, positions=positions)
        if "out_h" in wanted:
            made["out_h"] = OutputMoment(weight, positions=positions)
        return made

    def _agop(self, weight: Tensor) -> Agop | AgopEstimate:
        options = self.conventions
        if options.directions.count:
            return AgopEstimate(weight, options.directions.count, positions=options.positions)
        return Agop(weight, centre=options.centre, positions=options.positions)

    def _values(self, name: str, weight: Tensor, measures: Mapping[str, Any]) -> dict[str, Matrix]:
        for measure in measures.values():
            measure.reduce(self.world)
        if "h" in measures and (remembered := measures["h"].remembered()):
            self._known_inputs[name] = remembered
        found: dict[str, Matrix] = {key: measure.value() for key, measure in measures.items()}
        if "out_g" in self.wanted:
            found["out_g"] = measures["g"].output_side()
        found["nfm"] = nfm(weight)
        if "out_m" in self.wanted:
            found["out_m"] = nfm(weight.T)
        if "nfm_init_removed" in self.wanted:
            found["nfm_init_removed"] = nfm_init_removed(weight, self.initial[name].to(weight))
        return {key: matrix for key, matrix in found.items() if key in self.wanted}


def site_weights(workload: Workload, model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """A copy of the weight matrix [o i] of each named site."""
    return {name: site.weight.clone() for name, site in sites_of(workload.sites(model), names).items()}


def choose_sites(workload: Workload, model: nn.Module, pattern: str = "") -> list[str]:
    """Names of the sites that any of the comma-separated globs fits; without a pattern all but the readout."""
    known = workload.sites(model)
    if not pattern:
        readout = workload.readout(model) if len(known) > 1 else None
        return list(sites_of({name: module for name, module in known.items() if name != readout}))
    globs = [part.strip() for part in pattern.split(",")]
    names = [name for module in known for name in site_names(module, known[module])]
    unused = [glob for glob in globs if not any(fnmatchcase(name, glob) for name in names)]
    if unused:
        raise Refusal(f"sites={', '.join(unused)}", ", ".join(names), "name sites, or globs such as layer_*")
    return [name for name in names if any(fnmatchcase(name, glob) for glob in globs)]
