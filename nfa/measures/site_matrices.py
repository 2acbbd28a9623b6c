"""The matrices of every analysed site at one checkpoint, from one pass over the data."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch.nn as nn
from torch import Tensor

from nfa.maths.congruence import Congruence
from nfa.measures.agop import Agop, JacobianCentre, Positions
from nfa.measures.nfm import nfm, nfm_init_removed
from nfa.observe.capture import sites_of
from nfa.observe.passes import Precision, observe
from nfa.protocols import Batch, Workload

SiteMatrices = dict[str, dict[str, Congruence]]


def site_weights(workload: Workload, model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """A copy of the weight matrix [o i] of each named site."""
    modules = workload.sites(model)
    return {name: site.weight.clone() for name, site in sites_of({name: modules[name] for name in names}).items()}


def site_matrices(
    model: nn.Module,
    workload: Workload,
    batches: Iterable[Batch],
    initial: Mapping[str, Tensor],
    *,
    precision: Precision = "float32",
    centre: JacobianCentre = "none",
    positions: Positions = "each",
    hear_outputs: Callable[[Tensor, Batch], None] | None = None,
) -> SiteMatrices:
    """AGOP, NFM and NFM of W − W⁽⁰⁾ by site, for the sites whose `initial` weights are given."""
    weights = site_weights(workload, model, list(initial))
    agops = {name: Agop(weight, centre=centre, positions=positions) for name, weight in weights.items()}
    listeners = {name: [agop] for name, agop in agops.items()}
    observe(model, workload, batches, listeners, precision=precision, hear_outputs=hear_outputs)
    return {
        name: {
            "agop": agops[name].value(),
            "nfm": nfm(weight),
            "nfm_init_removed": nfm_init_removed(weight, initial[name]),
        }
        for name, weight in weights.items()
    }
