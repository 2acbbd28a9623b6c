"""Sums of Wᵀ x xᵀ W over rows x on a site's output side, accumulated on whichever side is cheaper."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.accumulate import add_gram, symmetric
from nfa.maths.congruence import Congruence
from nfa.parallel import World

Positions = Literal["each", "sum"]
ROUNDING = 16  # times the resolution of the numbers that are added up, and were themselves rounded before


def rows_of(x: Float[Tensor, "n s f"], positions: Positions) -> Float[Tensor, "m f"]:
    """Flatten positions into rows, or sum over each example's positions; a sum that is only a rounding error is 0.

    The gradients of an attention's keys, for example, add up to 0 over positions, because softmax does not change when
    all scores move together.

    Args:
        x: Values [n, s, f].
        positions: "each" or "sum".

    Returns:
        Rows [m, f], with m = n·s or m = n.
    """
    if positions == "each":
        return x.flatten(0, 1)
    total = x.sum(dim=1)
    rounding = ROUNDING * torch.finfo(x.dtype).eps * x.abs().sum(dim=1).amax(dim=1, keepdim=True)
    return total.masked_fill(total.abs().amax(dim=1, keepdim=True) <= rounding, 0)


def by_example(rows: Float[Tensor, "m f"], n: int) -> Float[Tensor, "n s f"]:
    """Split rows of n examples, which follow each other, by example.

    Args:
        rows: The rows [m, f].
        n: The number of examples.

    Returns:
        The rows of each example [n, m/n, f].
    """
    return rows.view(n, len(rows) // n if n else 0, rows.shape[-1])


class PulledBack:
    """Accumulate Σ Wᵀ x xᵀ W [i, i]: either Σ x xᵀ [o, o] or the sum itself, whichever costs less.

    Args:
        weight: The weight W [o, i].
    """

    def __init__(self, weight: Float[Tensor, "o i"]) -> None:
        o, i = weight.shape
        self.weight = weight
        self.on_input_side = self.cost(o, i) < o * o
        side = i if self.on_input_side else o
        self.total = weight.new_zeros((side, side))

    @staticmethod
    def cost(o: int, i: int) -> int:
        """Return the multiplications for each row x of a site with o outputs and i inputs."""
        return min(o * o, i * (o + i))

    def moved(self, rows: Float[Tensor, "m o"]) -> Float[Tensor, "m side"]:
        """Map rows [m, o] to the side on which the sum is accumulated."""
        return rows @ self.weight if self.on_input_side else rows

    def add(self, rows: Float[Tensor, "m side"]) -> None:
        """Add rows that `moved` has returned."""
        add_gram(self.total, rows)

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        self.total = world.sum(self.total)

    @property
    def factor(self) -> Tensor | None:
        """The factor F of the congruence Fᵀ C F whose core C is accumulated."""
        return None if self.on_input_side else self.weight

    def core(self, examples: int) -> Float[Tensor, "side side"]:
        """Return C, the mean over examples; raises ValueError where there are none."""
        if not examples:
            raise ValueError("a mean over no examples")
        return symmetric(self.total) / examples

    def mean(self, examples: int) -> Congruence:
        """Return the mean over examples as a `Congruence`."""
        return Congruence(self.factor, self.core(examples))
