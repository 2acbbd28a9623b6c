"""Gradients of a model's trainable parameters for each example, from one backward pass a batch."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from nfa.errors import Refusal
from nfa.maths.example_gradients import Dense, Part, joined
from nfa.observe.capture import inert, without_fused_attention
from nfa.observe.gradient_rules import LayoutError
from nfa.observe.parameter_uses import Ear, Region, Regions, Use
from nfa.observe.passes import per_example
from nfa.observe.single_examples import SingleExamples
from nfa.protocols import Batch, Workload
from nfa.seeding import generator

Losses = Callable[[Tensor, Batch], Tensor]
Gradients = dict[Region, list[Part]]
TOLERANCE = 1e-4  # of a parameter's largest entry
FAINT = 1e-6  # of the largest entry of all: below this there is nothing but rounding


@dataclass(frozen=True)
class BatchGradients:
    """Gradients γ_a = scale_a · (sum of the parts) by parameter; scales are powers of two that keep parts near 1."""

    parts: Gradients
    scale: Float[Tensor, " n"]

    @property
    def numbers(self) -> int:
        """Numbers held for an example."""
        return sum(part.numbers for parts in self.parts.values() for part in parts)


class ExampleGradients:
    """Gives `BatchGradients` of the named parameters.

    Making one runs `batch` (a few examples) and compares, for every parameter, a random combination of the gradients of
    its uses with what autograd says: where a use was not heard, or has no rule, the parameter's gradients are made by
    torch.func. `exact` names those parameters. `losses` gives one loss an example.
    """

    def __init__(
        self, model: nn.Module, workload: Workload, names: list[str], batch: Batch, losses: Losses | None = None
    ) -> None:
        self.model, self.workload = model, workload
        self.losses = losses or workload.losses
        found = dict(model.named_parameters())
        self.parameters = {name: found[name] for name in names}
        self.exact: list[str] = []
        self.known: set[Region] = set()
        self.single = SingleExamples(model, workload, {})
        self._hear(names)
        # Two sizes, so that no other dimension can pass for that of the examples.
        sizes = sorted({len(batch), max(1, len(batch) - 1)})
        unheard = {name for size in sizes for name in self._unheard(batch.take(range(size)))}
        if unheard:
            self.exact = [name for name in names if name in unheard]
            self._hear([name for name in names if name not in unheard])
            self.single = SingleExamples(model, workload, {name: self.parameters[name] for name in self.exact})

    def _hear(self, names: list[str]) -> None:
        self.regions = Regions({name: self.parameters[name] for name in names})

    def __call__(self, batch: Batch) -> BatchGradients:
        """The gradients of a batch's examples; weights, modes and generators stay as they were."""
        with inert(self.model):
            gradients, cotangent, unread = self._pass(batch)
            if different := unread | {region.parameter for region in gradients.parts.keys() - self.known}:
                raise Refusal(
                    f"parameter {min(different)!r}, which batches use in different ways",
                    "a model that uses its parameters in the same way for every batch",
                    "pad all examples to one length, or leave the parameter out",
                )
            for name, values in self.single(batch, cotangent).items():
                gradients.parts[self._whole(name)] = [Dense(values.flatten(1))]
        return gradients

    def _pass(self, batch: Batch) -> tuple[BatchGradients, Tensor, set[str]]:
        """Gradients, the cotangents of the outputs that they belong to, and parameters with a use that was not read."""
        with self._heard(batch) as ear:
            outputs = self.workload.outputs(self.model, batch)
        losses = per_example(self.losses(outputs, batch), batch)
        (cotangent,) = torch.autograd.grad(losses.sum(), outputs, retain_graph=True)
        scale = _powers_of_two(cotangent.flatten(1).abs().amax(dim=1))
        cotangent = cotangent / scale.view(-1, *[1] * (cotangent.ndim - 1))
        nodes = [use.node for use in ear.uses]
        deltas = torch.autograd.grad(outputs, nodes, cotangent, allow_unused=True) if nodes else ()
        parts, unread = self._read(zip(ear.uses, deltas, strict=True), len(batch))
        return BatchGradients({key: joined(found) for key, found in parts.items()}, scale), cotangent, unread

    def _read(self, uses: Iterable[tuple[Use, Tensor | None]], n: int) -> tuple[Gradients, set[str]]:
        parts: Gradients = {}
        unread: set[str] = set()
        for use, delta in uses:
            try:
                found = [] if delta is None else list(use.gradients(delta, n))
            except LayoutError:
                unread |= {region.parameter for region in use.regions.values()}
                continue
            for region, part in found:
                key, placed = self._placed(region, part)
                parts.setdefault(key, []).append(placed)
        return parts, unread

    @contextmanager
    def _heard(self, batch: Batch) -> Iterator[Ear]:
        with torch.enable_grad(), without_fused_attention(), Ear(self.regions, len(batch)) as ear:
            yield ear

    def _placed(self, region: Region, part: Part) -> tuple[Region, Part]:
        """A row of numbers for a view of a parameter becomes one for the whole parameter."""
        whole = self._whole(region.parameter)
        if region == whole or not isinstance(part, Dense):
            return region, part
        size = self.parameters[region.parameter].numel()
        places = region.view(torch.arange(size, device=part.values.device)).flatten()
        return whole, part.within(places, size)

    def _whole(self, name: str) -> Region:
        parameter = self.parameters[name]
        return Region(name, 0, tuple(parameter.shape), tuple(parameter.stride()))

    def _unheard(self, batch: Batch) -> set[str]:
        """Parameters whose heard gradients do not add up to autograd's, or that cannot be read."""
        with inert(self.model):
            with torch.enable_grad():
                outputs = self.workload.outputs(self.model, batch)
                losses = per_example(self.losses(outputs, batch), batch)
            weights = torch.rand(len(batch), generator=generator(0, "door")).to(losses) + 0.5
            values = [*self.parameters.values()]
            made = torch.autograd.grad((losses * weights).sum(), values, allow_unused=True)
            expected = [value.to_dense() if value is not None and value.is_sparse else value for value in made]
            totals, clashing = self._totals(batch, weights)
        largest = max((float(value.abs().max()) for value in expected if value is not None), default=0.0)
        pairs = zip(self.parameters, expected, strict=True)
        return clashing | {name for name, value in pairs if not _close(totals.get(name), value, FAINT * largest)}

    def _totals(self, batch: Batch, weights: Tensor) -> tuple[dict[str, Tensor], set[str]]:
        """Σ_a w_a γ_a of what was heard, by parameter, and parameters whose uses cannot be told apart."""
        gradients, _, unread = self._pass(batch)
        totals: dict[str, Tensor] = {}
        for region, parts in gradients.parts.items():
            name = region.parameter
            total = totals.setdefault(name, torch.zeros_like(self.parameters[name]))
            for part in parts:
                region.view(total).add_(part.total(weights * gradients.scale.to(weights)).view(region.shape))
        regions = [*gradients.parts]
        self.known |= gradients.parts.keys()
        return totals, unread | {a.parameter for a in regions for b in regions if a.clashes(b)}


def _close(heard: Tensor | None, expected: Tensor | None, faint: float) -> bool:
    if heard is None or expected is None:
        return (heard is None or not heard.any()) and (expected is None or not expected.any())
    scale = float(expected.abs().max())
    return float(heard.sub_(expected).abs_().max()) <= TOLERANCE * scale + faint


def _powers_of_two(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The power of two at or below each value; 1 for zero."""
    return torch.where(values > 0, 2.0 ** values.clamp(min=torch.finfo(values.dtype).tiny).log2().floor(), 1.0)
