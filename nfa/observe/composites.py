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
    """Tell whether z = W h + b for every row h, in float64 where a copy of the module can compute in it."""
    for make in (doubled, lambda module: module):
        try:
            return _of_rows(call) and _adds_up(make(call.module), call.given)
        except Exception:  # not a map of rows: it needs more dimensions or another type
            continue
    return False


def _of_rows(call: Call) -> bool:
    """Tell whether the module gives the same outputs for the rows of its input alone."""
    alone = Mapped(call.module, call.given).of(call.given.reshape(-1, call.given.shape[-1]))
    return near(alone.reshape(call.output.shape), call.output)


def _adds_up(module: nn.Module, like: Tensor) -> bool:
    """Tell whether f(a + 2 b) = f(a) + 2 f(b) − 2 f(0) for random rows, and f(a) does not depend on other rows."""
    rows = torch.randn(2, ROWS, like.shape[-1], generator=generator(0, "rows"), dtype=torch.float64).to(like.device)
    a, b = rows
    mapped = Mapped(module, a)
    values = mapped.of(torch.cat([a, b, a + 2 * b, torch.zeros_like(a)])).unflatten(0, (4, ROWS))
    allowed = max(TOLERANCE, 16 * torch.finfo(mapped.kind).eps) * values.abs().max()
    sums = values[2] - values[0] - 2 * values[1] + 2 * values[3]
    return not bool(torch.cat([sums, mapped.of(a[:1]) - values[0, :1]]).abs().max() > allowed)
