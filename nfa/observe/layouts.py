"""Where the examples are in the tensors that a model works on."""

from dataclasses import dataclass, replace
from typing import TypeAlias, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class LayoutError(Exception):
    """A tensor whose examples cannot be told apart."""


@dataclass(frozen=True)
class Axis:
    """n examples along dimension `dim`, which is [before·n·after]; 0 = as many as there are.

    `part` says which of the examples are read.
    """

    n: int
    dim: int = 0
    before: int = 1
    after: int = 0
    part: tuple[int, int | None] = (0, None)

    def examples(self, tensor: Tensor) -> Float[Tensor, "m k ..."]:
        """Examples first, then what shares their dimension, then the others; LayoutError where n does not fit."""
        if self.dim >= tensor.ndim or tensor.shape[self.dim] % (self.n * (self.before or 1) * (self.after or 1)):
            raise LayoutError
        if not self.dim and self.before == 1:
            return cast(Tensor, tensor.unflatten(0, (self.n, self.after or -1))[slice(*self.part)])
        if self.before and self.after and tensor.shape[self.dim] != self.before * self.n * self.after:
            raise LayoutError
        folded = tensor.unflatten(self.dim, (self.before or -1, self.n, self.after or -1)).movedim(self.dim + 1, 0)
        beside = folded.flatten(1 + self.dim, 2 + self.dim).movedim(1 + self.dim, 1)
        return cast(Tensor, beside[slice(*self.part)])

    def rows(self, tensor: Tensor) -> Float[Tensor, "m s f"]:
        """Features last, all other dimensions positions."""
        if self.dim >= tensor.ndim - 1:
            raise LayoutError
        found = self.examples(tensor)
        return found.reshape(len(found), -1, tensor.shape[-1])

    def images(self, tensor: Tensor) -> Float[Tensor, "mk ..."]:
        """The same tensor with examples outermost in its first dimension, as convolutions take it."""
        if self.dim:
            raise LayoutError
        return self.examples(tensor).flatten(0, 1)

    def sums(self, tensor: Tensor) -> Float[Tensor, " m"]:
        """The sum of each example's entries."""
        return self.examples(tensor).flatten(1).sum(dim=1)

    def own(self, present: Bool[Tensor, "n s"], positions: int) -> Bool[Tensor, "m s"]:
        """Which of the positions are an example's own; the only one is."""
        if positions == 1:
            return torch.ones_like(present[slice(*self.part), :1])
        if present.shape[1] != positions:
            raise LayoutError
        return present[slice(*self.part)]

    def of(self, part: slice) -> "Axis":
        """Of some examples only."""
        return replace(self, part=(part.start, part.stop))


@dataclass(frozen=True)
class Picked:
    """Rows [r f] taken by `index` [r] out of `total` rows of n examples, example after example: what a router chose."""

    n: int
    index: Int[Tensor, " r"]
    total: int
    part: tuple[int, int | None] = (0, None)

    def rows(self, tensor: Tensor) -> Float[Tensor, "m s f"]:
        """Rows by example, in their order; an example with fewer than others has zeros behind them."""
        if tensor.ndim != 2 or len(tensor) != len(self.index) or self.total % self.n:
            raise LayoutError
        owner = self.index // (self.total // self.n)
        order = torch.argsort(owner, stable=True)
        counts = torch.bincount(owner, minlength=self.n)
        behind = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[owner[order]]
        table = tensor.new_zeros(self.n, int(counts.max()), tensor.shape[1])
        table[owner[order], behind] = tensor[order]
        return table[slice(*self.part)]

    def sums(self, tensor: Tensor) -> Float[Tensor, " m"]:
        """The sum of each example's entries."""
        return self.rows(tensor).sum(dim=(1, 2))

    def images(self, tensor: Tensor) -> Tensor:  # noqa: ARG002 - no images are picked
        """None are picked."""
        raise LayoutError

    def own(self, present: Bool[Tensor, "n s"], positions: int) -> Bool[Tensor, "m s"]:  # noqa: ARG002 - its own
        """Which of the rows are an example's own."""
        if present.numel() != self.total:
            raise LayoutError
        return self.rows(present.flatten()[self.index].unsqueeze(1)).squeeze(2)

    def of(self, part: slice) -> "Picked":
        """Of some examples only."""
        return replace(self, part=(part.start, part.stop))


Layout: TypeAlias = Axis | Picked
