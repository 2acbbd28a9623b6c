"""How large the sites of a model are."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn

from nfa.observe.found_sites import Sites
from nfa.observe.inertness import inert, without_fused_attention
from nfa.workload import Batch, Workload


@dataclass(frozen=True)
class SiteShape:
    """The number of outputs o and inputs i of a site, and of the positions s where an example uses it."""

    outputs: int
    inputs: int
    positions: int


def site_shapes(
    model: nn.Module, workload: Workload, batch: Batch, sites: Sites, names: Sequence[str]
) -> dict[str, SiteShape]:
    """Return the shapes of the named sites, as `batch`, a few examples, uses them; those that it does not use lack.

    The model is not changed.
    """
    recorder = sites.recorder(model, workload.sites(model), len(batch), names)
    with inert(model), torch.enable_grad(), without_fused_attention(), recorder:
        workload.outputs(model, batch)
    found = {}
    for name, uses in recorder.found().items():
        layouts = [use.at(sites.seen[name].place, len(batch)) for use in uses]
        positions = sum(use.delta(at, None).shape[1] for use, at in zip(uses, layouts, strict=True))
        o, i = uses[0].widened().matrix().shape
        found[name] = SiteShape(o, i, positions)
    return found
