"""Composites: modules that add something to a product of their input, such as W h + B A h, and are one site as a whole.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor
from torch.autograd.graph import GradientEdge

from nfa.observe.example_axis import near
from nfa.observe.inertness import doubled
from nfa.observe.products import Mapped
from nfa.observe.recording import Use
from nfa.seeding import generator

ROWS = 8
TOLERANCE = 1e-5  # relative to the largest entry, in float64


@dataclass(frozen=True)
class Call:
    """A call of a module with one tensor, during which several products were made.

    `terms` are the products of its whole input that have the shape of its output, and `names` all that were made.
    """

    module: nn.Module
    given: Tensor
    output: Tensor
    node: GradientEdge
    terms: list[Use]
    names: frozenset[str]


def composites(calls: Mapping[str, Call], named: Mapping[str, str], whole: Iterable[str]) -> set[str]:
    """Return the paths of modules that are affine in their input, and add something to a product of it.

    `calls` has the inner modules first, `named` the site names of paths. A module whose products are all inside one
    composite, as in h + composite(h), or inside a module in `whole`, is none itself.
    """
    found: set[str] = set()
    for path, call in calls.items():
        inner = [f"{named[one]}." for one in {*whole, *found} if one in named and one.startswith(f"{path}.")]
        inside = any(all(f"{name}.".startswith(one) for name in call.names) for one in inner)
        if not inside and _adds(call) and _is_affine(call):
            found.add(path)
    return found


def _adds(call: Call) -> bool:
    """Tell whether a term reaches the output, at most with its features scaled, and something else does, too."""
    delta = torch.randn(call.output.shape, generator=generator(0, "composites")).to(call.output)
    nodes = [term.node for term in call.terms]
    try:
        made = torch.autograd.grad([call.node], nodes, [delta], allow_unused=True, retain_graph=True)
    except RuntimeError:  # a model that cannot be differentiated is refused later, with a remedy
        return False
    return any(_is_part(term.output, call.output, delta, one) for term, one in zip(call.terms, made, strict=True))


def _is_part(term: Tensor, output: Tensor, delta: Tensor, through: Tensor | None) -> bool:
    if through is None:
        return False
    if torch.equal(through, delta):
        return not torch.equal(term, output)
    rows, among = delta.reshape(-1, delta.shape[-1]), through.reshape(-1, delta.shape[-1])
    scale = (rows * among).sum(dim=0) / (rows * rows).sum(dim=0)
    return near(through, scale * delta) and not near(output, scale * term)


def _is_affine(call: Call) -> bool:
    """Tell whether z = W h + b, in float64 where a copy of the module can compute in it."""
    for make in (doubled, lambda module: module):
        try:
            return _is_map(make(call.module), call)
        except Exception:  # not one map of rows: it needs more dimensions or another type
            continue
    return False


def _is_map(module: nn.Module, call: Call) -> bool:
    """Compare a module with its map, for random rows and for the rows that it was given."""
    size, device = call.given.shape[-1], call.given.device
    rows = torch.randn(ROWS, size, generator=generator(0, "rows"), dtype=torch.float64).to(device)
    mapped = Mapped(module, rows)
    weight, offset, values = mapped.matrix(), mapped.of(torch.zeros_like(rows[:1])), mapped.of(rows)
    allowed = max(TOLERANCE, 16 * torch.finfo(mapped.kind).eps) * values.abs().max()
    if bool(((rows @ weight.T + offset - values).abs() > allowed).any()):
        return False
    return near(call.output, (call.given.to(weight) @ weight.T + offset).to(call.output))
