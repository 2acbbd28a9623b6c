"""Per-example gradients of one parameter, stored as factors where these are smaller."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

COLUMNS = 2**16  # entries that are multiplied at a time; float32 would lose digits in products over more
Room = Callable[[Tensor, int], Tensor]  # memory like a tensor for n examples and so many entries, used again and again


class Piece(NamedTuple):
    """Where some entries of gradients go: the columns of a table, with a row for each example."""

    out: Float[Tensor, "n c"]
    entries: slice


class Part(ABC):
    """A sum or a summand of the per-example gradients of one parameter, in some form."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def numbers(self) -> int:
        """The number of entries stored per example."""

    @property
    @abstractmethod
    def entries(self) -> int:
        """The number of entries of γ."""

    @property
    def row(self) -> int:
        """The number of entries of γ that are made together."""
        return 1

    @abstractmethod
    def total(self, weights: Float[Tensor, " n"]) -> Float[Tensor, " p"]:
        """Return the weighted sum Σ_a w_a γ_a [p]."""

    @abstractmethod
    def dense(self) -> "Dense":
        """Return the gradients themselves."""

    @abstractmethod
    def largest(self) -> Float[Tensor, " n"]:
        """Return an upper bound on the entries that the gradients are made of, for each example."""

    @abstractmethod
    def times(self, weights: Float[Tensor, " n"]) -> "Part":
        """Return w_a γ_a."""

    def paired(self, examples: int) -> "Part | None":  # noqa: ARG002 - most forms are only there to be written out
        """Return the form in which pairs of examples are multiplied without γ, for a Gram matrix of so many examples;
        None if it takes fewer multiply-adds to write γ out.
        """
        return None

    def write(self, pieces: Sequence[Piece]) -> None:
        """Write the gradients into pieces of a table."""
        values = self.dense().values
        for out, entries in pieces:
            out.copy_(values[:, entries])

    def blocks(self, room: Room) -> Iterator[Float[Tensor, "n c"]]:  # noqa: ARG002 - what exists needs no room
        """Yield the gradients, at most `COLUMNS` entries of each example at a time, or one row of more.

        Args:
            room: Memory for a block, which the next one overwrites.
        """
        values = self.dense().values
        yield from (values[:, entries] for entries in self.column_blocks())

    def column_blocks(self) -> list[slice]:
        """Divide the entries into blocks of whole rows, with at most `COLUMNS` entries unless a row has more."""
        most = max(1, COLUMNS // self.row) * self.row
        return [slice(start, min(start + most, self.entries)) for start in range(0, self.entries, most)]

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that have a row for each example."""
        return [value for value in vars(self).values() if isinstance(value, Tensor)]

    def begins(self, other: "Part", tolerance: float) -> bool:
        """Tell whether these are the first examples of another part, to a tolerance relative to its largest entry."""
        if type(self) is not type(other):
            return False
        pairs = [(a, b[: len(a)]) for a, b in zip(self.tensors, other.tensors, strict=True)]
        return all(a.shape == b.shape and _near(a, b, tolerance) for a, b in pairs)


@dataclass(frozen=True)
class GradientFactors(Part):
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

    @property
    def entries(self) -> int:
        """The number of entries of γ."""
        return self.left.shape[2:].numel() * self.row

    @property
    def row(self) -> int:
        """The number of entries q of a right factor."""
        return self.right.shape[3]

    def total(self, weights: Float[Tensor, " n"]) -> Float[Tensor, " gpq"]:
        """Return the weighted sum Σ_a w_a γ_a, its entries in the order [g, p, q]."""
        return torch.einsum("nsgp,nsgq->gpq", weighted(self.left, weights), self.right).flatten()

    def dense(self) -> "Dense":
        """Return the gradients themselves."""
        return Dense(torch.einsum("nsgp,nsgq->ngpq", self.left, self.right).flatten(1))

    def write(self, pieces: Sequence[Piece]) -> None:
        """Write the gradients into pieces of a table; whole rows of γ without a copy."""
        if self.left.shape[2] > 1 or any(end % self.row for _, at in pieces for end in (at.start, at.stop)):
            super().write(pieces)
            return
        for piece in pieces:
            self._write(piece)

    def _write(self, piece: Piece) -> None:
        """Write whole rows of γ, of factors in one group."""
        rows = slice(piece.entries.start // self.row, piece.entries.stop // self.row)
        out = piece.out.view(len(self), -1, self.row)
        torch.bmm(self.left[:, :, 0].transpose(1, 2)[:, rows], self.right[:, :, 0], out=out)

    def blocks(self, room: Room) -> Iterator[Float[Tensor, "n c"]]:
        """Yield the gradients, some rows of γ at a time."""
        if self.left.shape[2] > 1:
            yield from super().blocks(room)
            return
        for entries in self.column_blocks():
            piece = Piece(room(self.right, entries.stop - entries.start), entries)
            self._write(piece)
            yield piece.out

    def largest(self) -> Float[Tensor, " n"]:
        """Return an upper bound on the entries of δ_s h_sᵀ for each example."""
        return largest(self.left) * largest(self.right)

    def times(self, weights: Float[Tensor, " n"]) -> "GradientFactors":
        """Return w_a γ_a, with entries of at most 2 in the right factors."""
        sizes = [powers_of_two(largest(side)) for side in (self.left, self.right)]
        left, right = (weighted(side, 1 / size) for side, size in zip((self.left, self.right), sizes, strict=True))
        return GradientFactors(weighted(left, sizes[0] * sizes[1] * weights), right)

    def paired(self, examples: int) -> "GradientFactors | None":
        """Return these factors if pairs of positions cost less than γ.

        Multiply-adds for each example: pairs of positions n s² g (p + q)/2; γ s g p q, and its products n g p q/2.
        """
        s, _, p = self.left.shape[1:]
        return self if s * s * (p + self.row) <= p * self.row * (1 + 2 * s / examples) else None


@dataclass(frozen=True)
class Dense(Part):
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

    @property
    def entries(self) -> int:
        """The number of entries of γ."""
        return self.numbers

    def total(self, weights: Float[Tensor, " n"]) -> Float[Tensor, " p"]:
        """Return the weighted sum Σ_a w_a γ_a [p]."""
        return weights.to(self.values) @ self.values

    def dense(self) -> "Dense":
        """Return this object."""
        return self

    def largest(self) -> Float[Tensor, " n"]:
        """Return the largest magnitude among each example's values."""
        return largest(self.values)

    def times(self, weights: Float[Tensor, " n"]) -> "Dense":
        """Return w_a γ_a."""
        return Dense(weighted(self.values, weights))

    def within(self, places: Int[Tensor, " p"], size: int) -> "Dense":
        """Embed the gradients into those of a larger parameter: entry k goes to position places[k] of `size`."""
        return Dense(self.values.new_zeros(len(self.values), size).index_add_(1, places, self.values))


def powers_of_two(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the largest power of two that is not above each value.

    Args:
        values: Values of at least 0 [n].

    Returns:
        The powers of two [n]; 1 for a value of 0.
    """
    return torch.where(values > 0, 2.0 ** values.clamp(min=torch.finfo(values.dtype).tiny).log2().floor(), 1.0)


def _near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return not a.numel() or bool((a - b).abs().max() <= tolerance * b.abs().max())


def largest(values: Tensor) -> Float[Tensor, " n"]:
    """Return the largest magnitude among each example's values.

    Args:
        values: The values [n, …].

    Returns:
        The magnitudes [n].
    """
    if not values[:1].numel():
        return values.new_zeros(len(values))
    rows = values.flatten(1)
    return torch.maximum(rows.amax(dim=1), -rows.amin(dim=1))  # vector_norm takes twenty times as long


def weighted(values: Tensor, weights: Float[Tensor, " n"]) -> Tensor:
    """Multiply each example's values by its weight.

    Args:
        values: The values [n, …].
        weights: The weights [n].

    Returns:
        The products [n, …].
    """
    return values * weights.to(values).view(-1, *[1] * (values.ndim - 1))
