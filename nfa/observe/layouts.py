"""Where the examples are in the tensors that a model works on."""

from dataclasses import dataclass, replace
from typing import TypeAlias, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class LayoutError(Exception):
    """The examples of a tensor cannot be told apart."""


@dataclass(frozen=True)
class Axis:
    """n examples along dimension `dim`, which is folded as [before·n·after]; 0 stands for any number.

    `part` says which of the examples are read.
    """

    n: int
    dim: int = 0
    before: int = 1
    after: int = 0
    part: tuple[int, int | None] = (0, None)

    def examples(self, tensor: Tensor) -> Float[Tensor, "m k ..."]:
        """Return the examples first, then what shares their dimension, then the rest; LayoutError where n does not fit.
        """
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
        """Return rows with features last; all other dimensions are positions."""
        if self.dim >= tensor.ndim - 1:
            raise LayoutError
        found = self.examples(tensor)
        return found.reshape(len(found), -1, tensor.shape[-1])

    def images(self, tensor: Tensor) -> Float[Tensor, "mk ..."]:
        """Return the same tensor with examples outermost in its first dimension, as convolutions take it."""
        if self.dim:
            raise LayoutError
        return self.examples(tensor).flatten(0, 1)

    def sums(self, tensor: Tensor) -> Float[Tensor, " m"]:
        """Return the sum of each example's entries."""
        return self.examples(tensor).flatten(1).sum(dim=1)

    def own(self, present: Bool[Tensor, "n s"], positions: int) -> Bool[Tensor, "m s"]:
        """Return which positions belong to an example; a single position does."""
        if positions == 1:
            return torch.ones_like(present[slice(*self.part), :1])
        if present.shape[1] != positions:
            raise LayoutError
        return present[slice(*self.part)]

    def of(self, part: slice) -> "Axis":
        """Return the axis for a part of the examples."""
        return replace(self, part=(part.start, part.stop))


@dataclass(frozen=True)
class Picked:
    """Rows [r, f] that a router has picked by `index` [r] from `total` rows of n examples, one example after another.
    """

    n: int
    index: Int[Tensor, " r"]
    total: int
    part: tuple[int, int | None] = (0, None)

    def rows(self, tensor: Tensor) -> Float[Tensor, "m s f"]:
        """Return rows by example, in their order; an example with fewer rows is padded by zeros."""
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
        """Return the sum of each example's entries."""
        return self.rows(tensor).sum(dim=(1, 2))

    def images(self, tensor: Tensor) -> Tensor:  # noqa: ARG002 - no images are picked
        """Raise LayoutError: images are not picked."""
        raise LayoutError

    def own(self, present: Bool[Tensor, "n s"], positions: int) -> Bool[Tensor, "m s"]:  # noqa: ARG002 - its own
        """Return which rows belong to an example."""
        if present.numel() != self.total:
            raise LayoutError
        return self.rows(present.flatten()[self.index].unsqueeze(1)).squeeze(2)

    def of(self, part: slice) -> "Picked":
        """Return the rows of a part of the examples."""
        return replace(self, part=(part.start, part.stop))


Layout: TypeAlias = Axis | Picked
