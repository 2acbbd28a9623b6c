"""Per-example gradients of one parameter, stored as factors where these are smaller, and sums of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor


class _Held:
    """What all three forms of a gradient have in common."""

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that have a row for each example."""
        return [value for value in vars(self).values() if isinstance(value, Tensor)]

    def begins(self, other: "_Held", tolerance: float) -> bool:
        """Tell whether these are the first examples of another part, to a tolerance relative to its largest entry."""
        if type(self) is not type(other):
            return False
        pairs = [(a, b[: len(a)]) for a, b in zip(self.tensors, other.tensors, strict=True)]
        return all(a.shape == b.shape and _near(a, b, tolerance) for a, b in pairs)


@dataclass(frozen=True)
class GradientFactors(_Held):
    """Gradients as sums of outer products, γ_a = Σ_s left_as ⊗ right_as within each of g groups.

    Args:
        left: The left factors [n, s, g, p].
        right: The right factors [n, s, g, q].
    """

    left: Float[Tensor, "n s g p"]
    right: Float[Tensor, "n s g q"]

    def __len__(self) -> int:
        return len(self.left)

    @property
    def numbers(self) -> int:
        """The number of entries stored per example."""
        return self.left[0].numel() + self.right[0].numel()

    def total(self, weights: Float[Tensor, " n"]) -> Float[Tensor, " gpq"]:
        """Return the weighted sum Σ_a w_a γ_a, its entries in the order [g, p, q]."""
        return torch.einsum("nsgp,nsgq->gpq", _weighted(self.left, weights), self.right).flatten()

    def dense(self) -> "Dense":
        """Return the gradients themselves."""
        return Dense(torch.einsum("nsgp,nsgq->ngpq", self.left, self.right).flatten(1))

    def largest(self) -> Float[Tensor, " n"]:
        """Return an upper bound on the entries of δ_s h_sᵀ for each example."""
        return _largest(self.left) * _largest(self.right)

    def times(self, weights: Float[Tensor, " n"]) -> "GradientFactors":
        """Return w_a γ_a, with entries of at most 2 in the right factors."""
        sizes = [powers_of_two(_largest(side)) for side in (self.left, self.right)]
        left, right = (_weighted(side, 1 / size) for side, size in zip((self.left, self.right), sizes, strict=True))
        return GradientFactors(_weighted(left, sizes[0] * sizes[1] * weights), right)

    def compact(self, examples: int) -> "GradientFactors | Dense":
        """Choose factors or dense gradients, whichever needs fewer operations for a Gram matrix of so many examples.

        Pairs of positions cost n² s² g (p + q); making γ costs n s g p q, and its products cost n² g p q.
        """
        s, _, p = self.left.shape[1:]
        q = self.right.shape[3]
        return self if s * s * (p + q) <= p * q * (1 + s / examples) else self.dense()


@dataclass(frozen=True)
class Rows(_Held):
    """Gradients of a lookup table [rows, d]: γ_a has values_as added to row index_as.

    Args:
        index: The rows of the table that each example uses [n, s].
        values: What is added to these rows [n, s, d].
        rows: The number of rows of the table.
    """

    index: Int[Tensor, "n s"]
    values: Float[Tensor, "n s d"]
    rows: int

    def __len__(self) -> int:
        return len(self.index)

    @property
    def numbers(self) -> int:
        """The number of entries stored per example."""
        return self.values[0].numel() + self.index[0].numel()

    def total(self, weights: Float[Tensor, " n"]) -> Float[Tensor, " rd"]:
        """Return the weighted sum Σ_a w_a γ_a [rows·d]."""
        values = _weighted(self.values, weights).flatten(0, 1)
        return values.new_zeros(self.rows, values.shape[1]).index_add_(0, self.index.flatten(), values).flatten()

    def dense(self) -> "Dense":
        """Return the gradients themselves."""
        return Dense(scattered(self.index, self.values, self.rows))

    def largest(self) -> Float[Tensor, " n"]:
        """Return the largest magnitude among each example's values."""
        return _largest(self.values)

    def times(self, weights: Float[Tensor, " n"]) -> "Rows":
        """Return w_a γ_a."""
        return Rows(self.index, _weighted(self.values, weights), self.rows)

    def compact(self, examples: int) -> "Rows":  # noqa: ARG002 - rows stay rows
        """Return this object: rows are always the smallest form."""
        return self


@dataclass(frozen=True)
class Dense(_Held):
    """Gradients γ as one row of numbers per example.

    Args:
        values: The gradients [n, p].
    """

    values: Float[Tensor, "n p"]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def numbers(self) -> int:
        """The number of entries stored per example."""
        return self.values[0].numel()

    def total(self, weights: Float[Tensor, " n"]) -> Float[Tensor, " p"]:
        """Return the weighted sum Σ_a w_a γ_a [p]."""
        return weights.to(self.values) @ self.values

    def dense(self) -> "Dense":
        """Return this object."""
        return self

    def largest(self) -> Float[Tensor, " n"]:
        """Return the largest magnitude among each example's values."""
        return _largest(self.values)

    def times(self, weights: Float[Tensor, " n"]) -> "Dense":
        """Return w_a γ_a."""
        return Dense(_weighted(self.values, weights))

    def within(self, places: Int[Tensor, " p"], size: int) -> "Dense":
        """Embed the gradients into those of a larger parameter: entry k goes to position places[k] of `size`."""
        return Dense(self.values.new_zeros(len(self.values), size).index_add_(1, places, self.values))

    def compact(self, examples: int) -> "Dense":  # noqa: ARG002 - nothing is smaller
        """Return this object: no form is smaller."""
        return self


Part: TypeAlias = GradientFactors | Rows | Dense


def powers_of_two(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the largest power of two that is not above each value.

    Args:
        values: Values of at least 0 [n].

    Returns:
        The powers of two [n]; 1 for a value of 0.
    """
    return torch.where(values > 0, 2.0 ** values.clamp(min=torch.finfo(values.dtype).tiny).log2().floor(), 1.0)


def scattered(index: Int[Tensor, "n s"], values: Float[Tensor, "n s d"], rows: int) -> Float[Tensor, "n rd"]:
    """Add values to the rows of one table per example, and flatten the tables.

    Args:
        index: The rows that the values are added to [n, s].
        values: The values [n, s, d].
        rows: The number of rows of a table.

    Returns:
        The tables [n, rows·d].
    """
    table = values.new_zeros(len(values), rows, values.shape[2])
    return table.scatter_add_(1, index.unsqueeze(2).expand_as(values), values).flatten(1)


def _near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return not a.numel() or bool((a - b).abs().max() <= tolerance * b.abs().max())


def _largest(values: Tensor) -> Float[Tensor, " n"]:
    if not values[:1].numel():
        return values.new_zeros(len(values))
    found: Tensor = torch.linalg.vector_norm(values, ord=math.inf, dim=tuple(range(1, values.ndim)))
    return found


def _weighted(values: Tensor, weights: Float[Tensor, " n"]) -> Tensor:
    return values * weights.to(values).view(-1, *[1] * (values.ndim - 1))


def add_part(parts: list[Part], part: Part) -> None:
    """Append a part to a sum of parts, in place.

    Two dense parts in a row are added at once, because many of them would take much memory.

    Args:
        parts: The parts so far.
        part: The part to add.
    """
    last = parts[-1] if parts else None
    if isinstance(part, Dense) and isinstance(last, Dense):
        parts[-1] = Dense(last.values + part.values)
    else:
        parts.append(part)


def joined(parts: Sequence[Part]) -> list[Part]:
    """Merge the parts of a sum: parts of one form are concatenated along s, or added if they are dense.

    Args:
        parts: The parts of one parameter's gradients.

    Returns:
        Fewer parts with the same sum.
    """
    factors: dict[torch.Size, list[GradientFactors]] = {}
    for part in parts:
        if isinstance(part, GradientFactors):
            factors.setdefault(part.left.shape[2:], []).append(part)
    rows = [part for part in parts if isinstance(part, Rows)]
    dense = [part.values for part in parts if isinstance(part, Dense)]
    found: list[Part] = []
    for alike in factors.values():
        left, right = (torch.cat(sides, dim=1) for sides in zip(*((f.left, f.right) for f in alike), strict=True))
        found.append(GradientFactors(left, right))
    if rows:
        index, values = (torch.cat(sides, dim=1) for sides in zip(*((r.index, r.values) for r in rows), strict=True))
        found.append(Rows(index, values, rows[0].rows))
    return [*found, Dense(torch.stack(dense).sum(dim=0))] if dense else found
