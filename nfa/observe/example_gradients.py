"""Gradients of a model's trainable parameters for each example, from one backward pass a batch."""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from nfa.errors import Refusal
from nfa.maths.example_gradients import Dense, Part, add_part, joined, powers_of_two
from nfa.observe.hearing import ParameterEar, Use, widened
from nfa.observe.inertness import inert, without_fused_attention
from nfa.observe.layouts import Axis, LayoutError, axis
from nfa.observe.passes import per_example
from nfa.observe.regions import Region, Regions, overlapping
from nfa.observe.single_examples import SingleExamples, gradients
from nfa.observe.trials import Trial, strided, tolerance
from nfa.protocols import Batch, Workload
from nfa.seeding import generator

Losses = Callable[[Tensor, Batch], Tensor]
Gradients = dict[Region, list[Part]]
Uses = Mapping[Any, list[Use]]
MODERATE = 30  # binary orders


@dataclass(frozen=True)
class BatchGradients:
    """Gradients γ_a = scale_a · (sum of the parts) by parameter; scales are powers of two that keep parts near 1."""

    parts: Gradients
    scale: Float[Tensor, " n"]

    @property
    def numbers(self) -> int:
        """Numbers held for an example."""
        return sum(part.numbers for parts in self.parts.values() for part in parts)

    def scaled(self) -> "BatchGradients":
        """The same with each example's largest part near 1: products of float32 factors cover 38 decades, no more.

        Parts that are within 2^±30 are left as they are.
        """
        bounds = [part.largest() for parts in self.parts.values() for part in parts]
        more = powers_of_two(torch.stack(bounds).amax(dim=0)) if bounds else self.scale.new_ones(1)
        if more.log2().abs().max() <= MODERATE:
            return self
        parts = {key: [part.times(1 / more) for part in found] for key, found in self.parts.items()}
        return BatchGradients(parts, self.scale * more)


@dataclass(frozen=True)
class Reading:
    """Gradients, parameters with a use that cannot be read, and numbers of δ for an example, by where they belong."""

    parts: Gradients
    unread: set[str]
    way: frozenset[tuple[Region, int]]


@dataclass
class Door:
    """What a few examples have shown of a model, for all its checkpoints: parameters that are made `exact`ly, where the
    examples are in every kind of use, parts of parameters that were seen, and the ways in which batches use them."""

    exact: list[str] = field(default_factory=list)
    places: dict[Hashable, Axis | None] = field(default_factory=dict)
    seen: set[Region] = field(default_factory=set)
    ways: set[frozenset[tuple[Region, int]]] = field(default_factory=set)
    idle: list[str] = field(default_factory=list)
    overlapping: set[str] = field(default_factory=set)
    by_loop: bool = False


class ExampleGradients:
    """Gives `BatchGradients` of the named parameters.

    Without a `door`, that of another checkpoint, making one runs `batch` (a few examples) with random cotangents. A
    parameter's gradients are made by torch.func where a use of it was not heard or cannot be read, and where a random
    combination of them is not what autograd says. `door.exact` names those parameters. `losses` gives one loss an
    example.
    """

    def __init__(
        self,
        model: nn.Module,
        workload: Workload,
        names: list[str],
        batch: Batch,
        losses: Losses | None = None,
        door: Door | None = None,
    ) -> None:
        self.model, self.workload = model, workload
        self.losses = losses or workload.losses
        named = dict(model.named_parameters())
        self.parameters = {name: named[name] for name in names if named[name].numel()}
        self.door = door or Door()
        self.regions = Regions(self.parameters)
        self.single = self._single()
        if not door:
            with inert(model):
                self._try(batch, names)
        self.regions = Regions({name: of for name, of in self.parameters.items() if name not in self.door.exact})

    def _single(self) -> SingleExamples:
        exact = {name: self.parameters[name] for name in self.door.exact}
        return SingleExamples(self.model, self.workload, exact, by_loop=self.door.by_loop)

    def _try(self, batch: Batch, names: Iterable[str]) -> None:
        """Fill the door."""
        door, trial = self.door, self._trial(batch)
        outputs, uses = self._heard(batch)
        few = len(batch) - 1
        fewer = self._heard(batch.take(range(few))) if few else None
        door.places = _places(uses, fewer[1] if fewer else {}, len(batch))
        door.overlapping = overlapping(one for of in uses.values() for use in of for one in use.regions.values())
        found = self._read(outputs, uses, trial.cotangent)
        door.ways.add(found.way)
        unheard = self._unheard(trial, found)
        if fewer:
            unheard |= self._unheard_of_fewer(trial, found, *fewer)
        door.exact = [name for name in names if name in unheard]
        self.single = self._single()
        self._check_single(trial)
        door.by_loop = self.single.by_loop
        door.ways = {frozenset(one for one in way if one[0].parameter not in unheard) for way in door.ways}
        self._set_idle()

    def _set_idle(self) -> None:
        met = {*self.door.exact, *(region.parameter for region in self.door.seen)}
        self.door.idle = [name for name in self.parameters if name not in met]

    def __call__(self, batch: Batch) -> BatchGradients:
        """The gradients of a batch's examples; weights, modes and generators stay as they were."""
        with inert(self.model):
            outputs, uses = self._heard(batch)
            cotangent, scale = self._cotangent(outputs, batch)
            found = self._read(outputs, uses, cotangent)
            if found.way not in self.door.ways:  # longer sequences, or rows that a router chose
                trial = self._trial(batch)
                again = self._read(*self._heard(batch), trial.cotangent)
                self._refuse(self._unheard(trial, again) - {*self.door.exact})
                self.door.ways.add(found.way)
                self._set_idle()
            self._refuse(found.unread)
            for name, values in self.single(batch, cotangent).items():
                found.parts[self._whole(name)] = [Dense(widened(values).reshape(len(batch), -1))]
        return BatchGradients(found.parts, scale).scaled()

    def _refuse(self, different: set[str]) -> None:
        if different:
            raise Refusal(
                f"parameter {min(different)!r}, which batches use in different ways",
                "a model that uses its parameters in the same way for every batch",
                "pad all examples to one length, or leave the parameter out",
            )

    def _heard(self, batch: Batch, *, cut: bool = False) -> tuple[Tensor, Uses]:
        """Outputs, and where they use parameters."""
        with torch.enable_grad(), without_fused_attention(), ParameterEar(self.regions, len(batch), cut=cut) as ear:
            return self.workload.outputs(self.model, batch), ear.uses

    def _cotangent(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """∂ℓ_a/∂f(x_a) with entries near 1, and the powers of two taken out of it."""
        leaf = outputs.detach().requires_grad_()
        with torch.enable_grad():
            losses = per_example(self.losses(leaf.clone(), batch), batch)  # a clone, for losses that work in place
        made = gradients(losses, [leaf, *self.parameters.values()], torch.ones_like(losses))
        direct = [name for name, value in zip(self.parameters, made[1:], strict=True) if value is not None]
        if direct:
            raise Refusal(
                f"a loss that uses parameter {direct[0]!r} itself",
                "losses of the model's outputs and the targets",
                "leave penalties on weights out of the loss, and weight decay to the optimizer",
            )
        rows = (torch.zeros_like(leaf) if made[0] is None else made[0]).reshape(len(batch), -1)
        scale = powers_of_two(rows.abs().amax(dim=1))
        return (rows / scale.unsqueeze(1)).reshape(outputs.shape), scale.double()

    def _read(self, outputs: Tensor, uses: Uses, cotangent: Tensor) -> Reading:
        every = [use for of in uses.values() for use in of]
        idle = self.door.idle
        made = gradients(outputs, [use.node for use in every] + [self.parameters[name] for name in idle], cotangent)
        heard = {region.parameter for use in every for region in use.regions.values()}
        felt = {name for name, value in zip(idle, made[len(every) :], strict=True) if value is not None}
        unread = felt - heard
        parts: Gradients = {}
        sizes: set[tuple[Region, int]] = set()
        for use, delta in zip(every, made, strict=False):
            if delta is None:
                continue
            try:
                found = list(self._parts(use, delta, len(cotangent)))
            except LayoutError:
                unread |= {region.parameter for region in use.regions.values()}
                continue
            for region, part in found:
                whole, placed = self._placed(region, part)
                add_part(parts.setdefault(whole, []), placed)
                sizes.add((region, 0 if use.picked else delta.numel() // len(cotangent)))
        return Reading({key: joined(found) for key, found in parts.items()}, unread, frozenset(sizes))

    def _parts(self, use: Use, delta: Tensor, n: int) -> Iterator[tuple[Region, Part]]:
        """Per-example gradients from δ; LayoutError where they cannot be read."""
        if not delta.ndim or use.edited:
            raise LayoutError  # no row for each example, or edited in place since
        rule, own = use.widened(), widened(use.own(delta))
        for name, region in use.regions.items():
            place = self.door.places.get((type(use.rule), name, region.parameter))
            part = rule.gradient(name, own, use.at(place, n))
            if isinstance(part, Dense) and part.values.shape[1] != math.prod(region.shape):
                raise LayoutError  # repeated along its only dimension
            yield region, part

    def _placed(self, region: Region, part: Part) -> tuple[Region, Part]:
        """A row of numbers for a view of a parameter becomes one for all of it; overlapping views become rows first."""
        whole = self._whole(region.parameter)
        part = part.dense() if region.parameter in self.door.overlapping else part
        if region == whole or not isinstance(part, Dense):
            return region, part
        size = self.parameters[region.parameter].numel()
        places = region.view(torch.arange(size, device=part.values.device)).flatten()
        return whole, part.within(places, size)

    def _whole(self, name: str) -> Region:
        parameter = self.parameters[name]
        return Region(name, 0, tuple(parameter.shape), tuple(parameter.stride()))

    def _trial(self, batch: Batch) -> Trial:
        with torch.enable_grad():
            outputs = self.workload.outputs(self.model, batch)
        if outputs.shape[:1] != (len(batch),):
            raise Refusal(
                f"outputs of shape {tuple(outputs.shape)} for {len(batch)} examples",
                "outputs with the examples in the first dimension",
                "transpose them, or do not reduce them over the examples",
            )
        random = generator(0, "door")
        cotangent = torch.randn(outputs.shape, generator=random).to(outputs)
        weights = (torch.rand(len(batch), generator=random) + 0.5).to(outputs)
        made = gradients(outputs, [*self.parameters.values()], torch.einsum("n...,n->n...", cotangent, weights))
        pairs = zip(self.parameters.items(), made, strict=True)
        expected = {name: torch.zeros_like(of) if value is None else strided(value) for (name, of), value in pairs}
        return Trial(batch, outputs.detach(), cotangent, weights, expected)

    def _unheard(self, trial: Trial, found: Reading) -> set[str]:
        """Parameters whose gradients cannot all be read, or come out wrong."""
        self.door.seen |= found.parts.keys()
        clashing = {a.parameter for a in found.parts for b in self.door.seen if a.clashes(b)}
        cut, _ = self._heard(trial.batch, cut=True)
        rest = zip(self.parameters, gradients(cut, [*self.parameters.values()], trial.cotangent), strict=True)
        elsewhere = {name for name, value in rest if value is not None}
        return found.unread | clashing | elsewhere | trial.differing(self._totals(found.parts, trial.weights))

    def _unheard_of_fewer(self, trial: Trial, whole: Reading, outputs: Tensor, uses: Uses) -> set[str]:
        """The same with one example fewer, so that no other dimension can pass for that of the examples.

        Where all parts are those of before, what held of them holds again.
        """
        few = len(outputs)
        found = self._read(outputs, uses, trial.cotangent[:few])
        self.door.ways.add(found.way)
        if not found.unread and _begin_alike(found.parts, whole.parts):
            return set()
        batch = trial.batch.take(range(few))
        trial = self._trial(batch)
        return self._unheard(trial, self._read(*self._heard(batch), trial.cotangent))

    def _totals(self, parts: Gradients, weights: Tensor) -> dict[str, Tensor]:
        """Σ_a w_a γ_a by parameter."""
        totals: dict[str, Tensor] = {}
        for region, found in parts.items():
            name = region.parameter
            for part in found:
                value = part.total(weights).view(region.shape)
                if name not in totals and region == self._whole(name):
                    totals[name] = value
                else:
                    total = totals.setdefault(name, torch.zeros_like(self.parameters[name]))
                    region.view(total).add_(value)
        return {name: totals[name] if name in totals else torch.zeros_like(of) for name, of in self.parameters.items()}

    def _check_single(self, trial: Trial) -> None:
        """By torch.func where that is right (it follows no parameter that a module keeps in a list), else by a loop."""
        made = self.single(trial.batch, trial.cotangent).items()
        differing = trial.differing({name: torch.tensordot(trial.weights, values, dims=1) for name, values in made})
        wrong = {name for name in differing if trial.expected[name].isfinite().all()}
        if not wrong:
            return
        self.single.by_loop = True
        if not self._same_alone(trial):
            raise Refusal(
                f"parameter {min(wrong)!r}, whose gradients for an example alone are not those in a batch",
                "models that treat each example alone",
                "keep the examples in the first dimension, also if there is only one, and batch statistics fixed",
            )

    def _same_alone(self, trial: Trial) -> bool:
        """Whether the model says the same of examples one by one."""
        with torch.no_grad():
            rows = [self.workload.outputs(self.model, trial.batch.take([place])) for place in range(len(trial.batch))]
        alone = torch.stack([row.reshape(trial.outputs.shape[1:]) for row in rows])
        scale = float(trial.outputs.abs().max())
        return float((alone - trial.outputs).abs().max()) <= tolerance(alone) * scale


def _places(uses: Uses, fewer: Uses, n: int) -> dict[Hashable, Axis | None]:
    """Where the examples are, for every way of using a parameter: the same wherever it is used so, or None."""
    found: dict[Hashable, set[Axis]] = {}
    for key, of in uses.items():
        less = fewer.get(key, [])
        pairs = zip(of, less, strict=True) if len(of) == len(less) else ()
        places = {axis(many.tensors(), one.tensors(), n) for many, one in pairs} if n > 1 else {Axis(1)}
        for way in key:
            found.setdefault(way, set()).update(place for place in places if place)  # none: shared by all
    return {way: next(iter(places)) if len(places) == 1 else None for way, places in found.items()}


def _begin_alike(few: Gradients, many: Gradients) -> bool:
    """Whether the parts of the first examples are those of the same examples among more."""
    if few.keys() != many.keys() or any(len(few[key]) != len(many[key]) for key in few):
        return False
    pairs = [pair for key in few for pair in zip(few[key], many[key], strict=True)]
    return all(a.begins(b, tolerance(a.tensors[-1])) for a, b in pairs)
