"""Per-example gradients of a model's trainable parameters, from one backward pass per batch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from nfa.errors import Refusal
from nfa.maths.example_gradients import Dense, powers_of_two
from nfa.observe.gradient_door import GradientDoor
from nfa.observe.gradient_reading import Door, Gradients, Reader, Take
from nfa.observe.inertness import inert
from nfa.observe.moved import seen_moved
from nfa.observe.passes import per_example
from nfa.observe.recording import widened
from nfa.observe.single_examples import gradients
from nfa.workload import Batch, Workload

Losses = Callable[[Tensor, Batch], Tensor]
MODERATE = 30  # binary orders


@dataclass(frozen=True)
class BatchGradients:
    """Gradients γ_a = scale_a · (sum of the parts) by parameter; the scales are powers of two that keep the parts near
    1, and 0 for a loss without a gradient.
    """

    parts: Gradients
    scale: Float[Tensor, " n"]

    @property
    def numbers(self) -> int:
        """The number of entries stored per example."""
        return sum(part.numbers for parts in self.parts.values() for part in parts)

    def scaled(self) -> "BatchGradients":
        """Rescale each example's largest part to about 1, because products of float32 factors cover only 38 decades.

        Parts within 2^±30 are left as they are.
        """
        bounds = [part.largest() for parts in self.parts.values() for part in parts]
        more = powers_of_two(torch.stack(bounds).amax(dim=0)) if bounds else self.scale.new_ones(1)
        if more.log2().abs().max() <= MODERATE:
            return self
        parts = {key: [part.times(1 / more) for part in found] for key, found in self.parts.items()}
        return BatchGradients(parts, self.scale * more)


class ExampleGradients:
    """Compute `BatchGradients` of the named parameters.

    Without the `door` of another checkpoint, creating one runs `batch` (a few examples) with random cotangents.
    `door.exact` names the parameters that no rule covers. `losses` returns one loss per example. With the attribute
    `scales`, gradients are scaled so that products of float32 numbers neither vanish nor overflow.
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
        self.model, self.losses, self.scales = model, losses or workload.losses, True
        self.door = door or Door()
        self.reader = Reader(model, workload, names, self.door)
        self.guard = GradientDoor(self.reader)
        if not door:
            with inert(model):
                seen_moved(model, lambda changed: self.guard.open(batch, names, changed))
        self.reader.without_exact()
        self.parameters, self.single = self.reader.parameters, self.reader.single()
        self.bytes_of_number = next(iter(self.parameters.values())).element_size()

    def __call__(self, batch: Batch) -> BatchGradients:
        """Return the gradients of a batch's examples; weights, modes and generators are not changed."""
        parts: Gradients = {}
        scale = self._handed(batch, parts.__setitem__)
        order = {name: place for place, name in enumerate(self.parameters)}
        in_order = sorted(parts, key=lambda region: order[region.parameter])
        made = BatchGradients({region: parts[region] for region in in_order}, scale)
        return made.scaled() if self.scales else made

    def hand_over(self, batch: Batch, take: Take) -> Float[Tensor, " n"]:
        """Give the gradients of one parameter after another to `take`; only with `scales` are all held at a time.

        Returns:
            The scale of each example's gradients.
        """
        if not self.scales:
            return self._handed(batch, take)
        made = self(batch)
        for region, parts in made.parts.items():
            take(region, parts)
        return made.scale

    def _handed(self, batch: Batch, take: Take) -> Float[Tensor, " n"]:
        with inert(self.model):
            outputs, uses = self.reader.recorded(batch)
            cotangent, scale = self._cotangent(outputs, batch)
            every = [use for of in uses.values() for use in of]
            del uses  # so that each use is dropped when it is read
            unread, way = self.reader.hand_over(outputs, every, cotangent, take)
            self._refuse(self.guard.check(batch, way) | unread)
            for name, values in self.single(batch, cotangent).items():
                take(self.reader.whole(name), [Dense(widened(values).reshape(len(batch), -1))])
        return scale

    def _refuse(self, different: set[str]) -> None:
        if different:
            got = f"parameter {min(different)!r}, which batches use in different ways"
            allowed = "a model that uses its parameters in the same way for every batch"
            raise Refusal(got, allowed, "pad all examples to one length, or leave the parameter out")

    def _cotangent(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return ∂ℓ_a/∂f(x_a) with entries near 1, and the powers of two by which it was divided; 0 where it is 0."""
        leaf = outputs.detach().requires_grad_()
        with torch.enable_grad():
            losses = per_example(self.losses(leaf.clone(), batch), batch)  # cloned because a loss may work in place
        made = gradients(losses, [leaf, *self.parameters.values()], torch.ones_like(losses))
        direct = [name for name, value in zip(self.parameters, made[1:], strict=True) if value is not None]
        if direct:
            got = f"a loss that uses parameter {direct[0]!r} directly"
            allowed = "losses of the model's outputs and the targets"
            raise Refusal(got, allowed, "replace penalties on weights in the loss by the optimizer's weight decay")
        rows = (torch.zeros_like(leaf) if made[0] is None else made[0]).reshape(len(batch), -1)
        sizes = rows.abs().amax(dim=1)
        scale = powers_of_two(sizes)
        return (rows / scale.unsqueeze(1)).reshape(outputs.shape), scale.double() * (sizes > 0)
