"""Sums of outer products x xᵀ over a stream of rows x, kept as the rows themselves while these are few."""

from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.accumulate import add_gram, symmetric
from nfa.maths.congruence import Congruence
from nfa.parallel import World


def stays_rows(rows: int | Fraction, features: int) -> bool:
    """Tell whether so many rows stay rows.

    Args:
        rows: Their number.
        features: The number of entries of each.

    Returns:
        Whether they are at most half as many.
    """
    return 2 * rows <= features


class OuterSum:
    """Accumulate Σ x xᵀ [f, f] over rows x: as rows up to f/2 of them, from then on as the matrix.

    With r rows, up to f/2, an inner product of two such sums costs r² f multiplications, which is less than forming
    them, and a product with a vector costs less than with the matrix. 500 rows of 50,257 entries take 100 MB, the
    matrix takes 10 GB.

    Args:
        features: The number f of entries of x.
        like: A tensor whose type and device are used.
        share: The share of all rows that come, in a trial of a few of them, which does what all would do.
    """

    def __init__(self, features: int, like: Tensor, share: Fraction = Fraction(1)) -> None:
        self.features, self.like, self.share = features, like.new_empty(0), share
        self.rows: list[Tensor] = []
        self.total: Tensor | None = None

    def add(self, rows: Float[Tensor, "m f"]) -> None:
        """Add some rows."""
        if self.total is None and self._fits(self._count() + len(rows)):
            self.rows.append(rows.detach().clone())
        else:
            add_gram(self._matrix(), rows)

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        if world.size == 1:
            return
        formed = world.count(int(self.total is not None))
        if formed or not self._fits(world.count(self._count())):
            self.total = world.sum(self._matrix())
        else:
            everyone = world.gather(self.joined().cpu())
            self.rows = [rows.to(self.like.device) for rows in everyone]

    def mean(self, examples: int) -> Congruence:
        """Return the sum over so many examples, divided by their number; raises ValueError where there are none."""
        if not examples:
            raise ValueError("a mean over no examples")
        if self.total is None:
            return Congruence(self.joined() / examples**0.5, None)
        return Congruence(None, symmetric(self.total) / examples)

    def joined(self) -> Float[Tensor, "m f"]:
        """Return the rows, if the matrix has not been formed."""
        return torch.cat([self.like.new_empty(0, self.features), *self.rows])

    def _fits(self, rows: int) -> bool:
        return stays_rows(rows / self.share, self.features)

    def _count(self) -> int:
        return sum(map(len, self.rows))

    def _matrix(self) -> Tensor:
        """Return the upper block triangle of the matrix, with all rows so far."""
        if self.total is None:
            self.total = self.like.new_zeros(self.features, self.features)
            for rows in self.rows:
                add_gram(self.total, rows)
            self.rows = []
        return self.total
