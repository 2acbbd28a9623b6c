"""Read how a batch uses parameters as per-example gradients."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nfa.maths.example_gradients import Dense, Part
from nfa.maths.gradient_parts import add_part, joined
from nfa.observe.inertness import without_fused_attention
from nfa.observe.layouts import Axis, LayoutError
from nfa.observe.parameter_regions import Region, Regions, whole_region
from nfa.observe.recording import ParameterRecorder, Use, widened
from nfa.observe.single_examples import SingleExamples, gradients
from nfa.workload import Batch, Workload

Gradients = dict[Region, list[Part]]
Uses = Mapping[Any, list[Use]]
Way = frozenset[tuple[Region, int]]
Take = Callable[[Region, list[Part]], None]  # of the gradients of one parameter


@dataclass(frozen=True)
class Reading:
    """Gradients, parameters with a use that cannot be read, and the size of δ per example for each part of a parameter.
    """

    parts: Gradients
    unread: set[str]
    way: Way


@dataclass
class Door:
    """What a few examples have shown of a model, for all its checkpoints.

    `exact` are parameters whose gradients are computed exactly by torch.func, `places` the axis of the examples in
    every kind of use, `seen` the parts of parameters that were seen, and `ways` the ways in which batches use them.
    """

    exact: list[str] = field(default_factory=list)
    places: dict[Hashable, Axis | None] = field(default_factory=dict)
    seen: set[Region] = field(default_factory=set)
    ways: set[Way] = field(default_factory=set)
    idle: list[str] = field(default_factory=list)
    overlapping: set[str] = field(default_factory=set)
    by_loop: bool = False


class Reader:
    """Record how a model uses the named parameters, and read their gradients from δ."""

    def __init__(self, model: nn.Module, workload: Workload, names: list[str], door: Door) -> None:
        self.model, self.workload, self.door = model, workload, door
        named = dict(model.named_parameters())
        self.parameters = {name: named[name] for name in names if named[name].numel()}
        self.regions = Regions(self.parameters)

    def without_exact(self) -> None:
        """Record from now on only what is not computed by torch.func."""
        self.regions = Regions({name: of for name, of in self.parameters.items() if name not in self.door.exact})

    def single(self) -> SingleExamples:
        """Return the slow method for the other parameters."""
        exact = {name: self.parameters[name] for name in self.door.exact}
        return SingleExamples(self.model, self.workload, exact, by_loop=self.door.by_loop)

    def recorded(self, batch: Batch, *, cut: bool = False, whole: bool = False) -> tuple[Tensor, Uses]:
        """Return the outputs and the uses of parameters; with `whole`, include the outputs of the functions."""
        recorder = ParameterRecorder(self.regions, len(batch), cut=cut)
        recorder.keeps_outputs = whole
        with torch.enable_grad(), without_fused_attention(), recorder:
            return self.workload.outputs(self.model, batch), recorder.uses

    def read(self, outputs: Tensor, uses: Uses, cotangent: Tensor) -> Reading:
        """Read the gradients from the uses, for cotangents of the outputs."""
        parts: Gradients = {}
        unread, way = self.hand_over(outputs, [use for of in uses.values() for use in of], cotangent, parts.__setitem__)
        return Reading(parts, unread, way)

    def hand_over(self, outputs: Tensor, uses: list[Use], cotangent: Tensor, take: Take) -> tuple[set[str], Way]:
        """Read the gradients of one parameter after another, and give each to `take`.

        The last uses come first: their δ was computed last and may be in the cache. Each is dropped when it is read,
        and `uses` is empty in the end.

        Returns:
            The parameters with a use that cannot be read, and the sizes of δ.
        """
        made = self._made(outputs, uses, cotangent)
        unread = self._felt(made[len(uses) :]) - {name for use in uses for name in _parameters(use)}
        del made[len(uses) :]
        adding, sizes, n = _Adding(uses, take), set[tuple[Region, int]](), len(cotangent)
        while uses:
            use, delta = uses.pop(), made.pop()
            try:
                found = [] if delta is None else list(self._parts(use, delta, n))
            except LayoutError:
                found, unread = [], unread | _parameters(use)
            if found and delta is not None:
                sizes |= {(region, 0 if use.picked else delta.numel() // n) for region in use.regions.values()}
            adding.add(use, found)
        return unread, frozenset(sizes)

    def _made(self, outputs: Tensor, uses: list[Use], cotangent: Tensor) -> list[Tensor | None]:
        """Return δ of each use, and then the gradients of the parameters that had no use in the test."""
        idle = [self.parameters[name] for name in self.door.idle]
        return [*gradients(outputs, [use.node for use in uses] + idle, cotangent)]

    def _felt(self, made: Sequence[Tensor | None]) -> set[str]:
        """Return the parameters that had no use in the test, but have a gradient."""
        return {name for name, value in zip(self.door.idle, made, strict=True) if value is not None}

    def _parts(self, use: Use, delta: Tensor, n: int) -> Iterator[tuple[Region, Part]]:
        """Yield per-example gradients from δ; LayoutError where they cannot be read."""
        if not delta.ndim or use.edited:
            raise LayoutError  # no row for each example, or edited in place since
        rule, own = use.widened(), widened(use.own(delta))
        for name, region in use.regions.items():
            place = self.door.places.get((type(use.rule), name, region.parameter))
            part = rule.gradient(name, own, use.at(place, n))
            if isinstance(part, Dense) and part.values.shape[1] != math.prod(region.shape):
                raise LayoutError  # repeated along its only dimension
            yield self._placed(region, part)

    def _placed(self, region: Region, part: Part) -> tuple[Region, Part]:
        """Embed gradients of a view into those of the whole parameter; overlapping views become dense first."""
        whole = self.whole(region.parameter)
        part = part.dense() if region.parameter in self.door.overlapping else part
        if region == whole or not isinstance(part, Dense):
            return region, part
        size = self.parameters[region.parameter].numel()
        places = region.view(torch.arange(size, device=part.values.device)).flatten()
        return whole, part.within(places, size)

    def whole(self, name: str) -> Region:
        """Return the region of a whole parameter."""
        return whole_region(name, self.parameters[name])


class _Adding:
    """Add up what the uses of each parameter give, and give it to `take` when its last use has been read."""

    def __init__(self, uses: Sequence[Use], take: Take) -> None:
        self.take = take
        self.left = Counter(name for use in uses for name in _parameters(use))
        self.parts: dict[str, Gradients] = {}

    def add(self, use: Use, found: Sequence[tuple[Region, Part]]) -> None:
        """Add the gradients that one use gives."""
        for region, part in found:
            add_part(self.parts.setdefault(region.parameter, {}).setdefault(region, []), part)
        self.left.subtract(_parameters(use))
        for name in _parameters(use):
            for region, parts in self.parts.pop(name, {}).items() if not self.left[name] else ():
                self.take(region, joined(parts))


def _parameters(use: Use) -> set[str]:
    return {region.parameter for region in use.regions.values()}
