"""Gradients of one parameter for each example, as factors where those are smaller, and their inner products.

For a product z = W h at s positions γ = Σ_s δ_s h_sᵀ is a matrix [o i], but ⟨γ_a, γ_b⟩ = Σ_st ⟨δ_as, δ_bt⟩⟨h_as, h_bt⟩
needs none: with one position it is (δδᵀ) ∘ (hhᵀ) (Goodfellow 2015, arXiv 1510.01799, on the diagonal).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

ENTRIES = 2**25  # numbers of a temporary tensor


class _Held:
    """What all forms share."""

    @property
    def tensors(self) -> list[Tensor]:
        """Those with a row for each example."""
        return [value for value in vars(self).values() if isinstance(value, Tensor)]

    def begins(self, other: "_Held", tolerance: float) -> bool:
        """Whether these are the first examples of another, to a tolerance relative to the largest entry."""
        if type(self) is not type(other):
            return False
        pairs = [(a, b[: len(a)]) for a, b in zip(self.tensors, other.tensors, strict=True)]
        return all(a.shape == b.shape and _near(a, b, tolerance) for a, b in pairs)


@dataclass(frozen=True)
class GradientFactors(_Held):
    """γ_a = Σ_s left_as ⊗ right_as for each of g groups: entries in the order [g p q]."""

    left: Float[Tensor, "n s g p"]
    right: Float[Tensor, "n s g q"]

    def __len__(self) -> int:
        return len(self.left)

    @property
    def numbers(self) -> int:
        """Numbers held for an example."""
        return self.left[0].numel() + self.right[0].numel()

    def total(self, weights: Float[Tensor, " n"]) -> Float[Tensor, " gpq"]:
        """Σ_a w_a γ_a."""
        return torch.einsum("nsgp,nsgq->gpq", _weighted(self.left, weights), self.right).flatten()

    def dense(self) -> "Dense":
        """γ itself."""
        return Dense(torch.einsum("nsgp,nsgq->ngpq", self.left, self.right).flatten(1))

    def largest(self) -> Float[Tensor, " n"]:
        """A bound of the products δ_s h_s."""
        return _largest(self.left) * _largest(self.right)

    def times(self, weights: Float[Tensor, " n"]) -> "GradientFactors":
        """w_a γ_a, the right side's entries at most 2."""
        sizes = [powers_of_two(_largest(side)) for side in (self.left, self.right)]
        left, right = (_weighted(side, 1 / size) for side, size in zip((self.left, self.right), sizes, strict=True))
        return GradientFactors(_weighted(left, sizes[0] * sizes[1] * weights), right)

    def compact(self, examples: int) -> "GradientFactors | Dense":
        """Factors or γ, whichever costs fewer products for the Gram matrix of so many examples.

        Pairs of positions cost n² s² g (p + q); making γ costs n s g p q, and its products n² g p q.
        """
        s, _, p = self.left.shape[1:]
        q = self.right.shape[3]
        return self if s * s * (p + q) <= p * q * (1 + s / examples) else self.dense()


@dataclass(frozen=True)
class Rows(_Held):
    """γ_a has values_as added to row index_as of a table [rows d]."""

    index: Int[Tensor, "n s"]
    values: Float[Tensor, "n s d"]
    rows: int

    def __len__(self) -> int:
        return len(self.index)

    @property
    def numbers(self) -> int:
        """Numbers held for an example."""
        return self.values[0].numel() + self.index[0].numel()

    def total(self, weights: Float[Tensor, " n"]) -> Float[Tensor, " rd"]:
        """Σ_a w_a γ_a."""
        values = _weighted(self.values, weights).flatten(0, 1)
        return values.new_zeros(self.rows, values.shape[1]).index_add_(0, self.index.flatten(), values).flatten()

    def dense(self) -> "Dense":
        """γ itself."""
        return Dense(_scattered(self.index, self.values, self.rows))

    def largest(self) -> Float[Tensor, " n"]:
        """Of the values."""
        return _largest(self.values)

    def times(self, weights: Float[Tensor, " n"]) -> "Rows":
        """w_a γ_a."""
        return Rows(self.index, _weighted(self.values, weights), self.rows)

    def compact(self, examples: int) -> "Rows":  # noqa: ARG002 - rows stay rows
        """Itself."""
        return self


@dataclass(frozen=True)
class Dense(_Held):
    """γ as a row of numbers for each example."""

    values: Float[Tensor, "n p"]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def numbers(self) -> int:
        """Numbers held for an example."""
        return self.values[0].numel()

    def total(self, weights: Float[Tensor, " n"]) -> Float[Tensor, " p"]:
        """Σ_a w_a γ_a."""
        return weights.to(self.values) @ self.values

    def dense(self) -> "Dense":
        """Itself."""
        return self

    def largest(self) -> Float[Tensor, " n"]:
        """Of the values."""
        return _largest(self.values)

    def times(self, weights: Float[Tensor, " n"]) -> "Dense":
        """w_a γ_a."""
        return Dense(_weighted(self.values, weights))

    def within(self, places: Int[Tensor, " p"], size: int) -> "Dense":
        """The same as part of a larger parameter: entry k stands at places[k] of `size` entries."""
        return Dense(self.values.new_zeros(len(self.values), size).index_add_(1, places, self.values))

    def compact(self, examples: int) -> "Dense":  # noqa: ARG002 - nothing is smaller
        """Itself."""
        return self


Part: TypeAlias = GradientFactors | Rows | Dense


def powers_of_two(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The power of two at or below each value; 1 for zero."""
    return torch.where(values > 0, 2.0 ** values.clamp(min=torch.finfo(values.dtype).tiny).log2().floor(), 1.0)


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
    """Add a term to a sum of parts; rows of numbers are added up at once, as many of them take much memory."""
    last = parts[-1] if parts else None
    if isinstance(part, Dense) and isinstance(last, Dense):
        parts[-1] = Dense(last.values + part.values)
    else:
        parts.append(part)


def joined(parts: Sequence[Part]) -> list[Part]:
    """The same sum of parts with fewer of them: uses of one kind follow each other along s."""
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


def inner(a: Sequence[Part], b: Sequence[Part]) -> Float[Tensor, "n m"]:
    """⟨γ_a, γ_b⟩ of all pairs, γ the sum of the parts: a parameter that several layers share has cross terms."""
    products = [_inner(x, y) for x in a for y in b]
    return torch.stack(products).sum(dim=0) if len(products) > 1 else products[0]


def _inner(a: Part, b: Part) -> Tensor:
    if isinstance(a, GradientFactors) and isinstance(b, GradientFactors) and a.left.shape[2:] == b.left.shape[2:]:
        return _pairs_of_positions(a, b)
    if isinstance(a, Rows) and isinstance(b, Rows):
        return _same_rows(a, b)
    if isinstance(a, Rows) and isinstance(b, GradientFactors) and b.left.shape[2] == 1:
        return _rows_of_factors(a, b)
    if isinstance(a, GradientFactors) and isinstance(b, Rows) and a.left.shape[2] == 1:
        return _rows_of_factors(b, a).T
    return a.dense().values @ b.dense().values.T


def _pairs_of_positions(a: GradientFactors, b: GradientFactors) -> Tensor:
    n, s, groups = a.left.shape[:3]
    m, t = b.left.shape[:2]
    size = max(1, ENTRIES // max(1, s * m * t))
    rows = []
    for start in range(0, n, size):
        part = slice(start, start + size)
        total = torch.zeros((), dtype=a.left.dtype, device=a.left.device)
        for group in range(groups):
            left = a.left[part, :, group].flatten(0, 1) @ b.left[:, :, group].flatten(0, 1).T
            right = a.right[part, :, group].flatten(0, 1) @ b.right[:, :, group].flatten(0, 1).T
            total = total + left.mul_(right)
        rows.append(total if s == t == 1 else total.view(len(a.left[part]), s, m, t).sum(dim=(1, 3)))
    return torch.cat(rows)


def _same_rows(a: Rows, b: Rows) -> Tensor:
    """Only rows that occur count; so many of them at a time that the dense tables stay small."""
    used = torch.unique(torch.cat([a.index.flatten(), b.index.flatten()]))
    size = max(1, ENTRIES // (max(len(a), len(b)) * a.values.shape[2]))
    total = a.values.new_zeros(len(a), len(b))
    for some in used.split(size):
        tables = []
        for side in (a, b):
            place = torch.searchsorted(some, side.index).clamp(max=len(some) - 1)
            held = (some[place] == side.index).unsqueeze(2)
            tables.append(_scattered(place, torch.where(held, side.values, 0), len(some)))
        total += tables[0] @ tables[1].T
    return total


def _scattered(index: Tensor, values: Tensor, rows: int) -> Float[Tensor, "n rd"]:
    """Values [n s d] added to rows of a table for each example, flat."""
    table = values.new_zeros(len(values), rows, values.shape[2])
    return table.scatter_add_(1, index.unsqueeze(2).expand_as(values), values).flatten(1)


def _rows_of_factors(a: Rows, b: GradientFactors) -> Tensor:
    """A table that is also a matrix [rows d] (tied embeddings): Σ_st left_bt[index_as] ⟨right_bt, values_as⟩."""
    n, s = a.index.shape
    m, t = b.left.shape[:2]
    left, right = b.left.flatten(2).flatten(0, 1), b.right.flatten(2).flatten(0, 1)
    size = max(1, ENTRIES // max(1, s * m * t))
    rows = []
    for start in range(0, n, size):
        part = slice(start, start + size)
        picked = left[:, a.index[part].flatten()].T
        products = picked * (a.values[part].flatten(0, 1) @ right.T)
        rows.append(products.view(len(a.index[part]), s, m, t).sum(dim=(1, 3)))
    return torch.cat(rows)
