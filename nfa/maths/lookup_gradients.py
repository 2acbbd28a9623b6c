"""Per-example gradients of a table of which each example looks up some rows, such as embeddings."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfa.maths.example_gradients import Dense, Part, largest, weighted

MOSTLY = 2  # rows of a table for each that an example uses, above which the table is mostly 0


@dataclass(frozen=True)
class Rows(Part):
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

    @property
    def entries(self) -> int:
        """The number of entries of the table."""
        return self.rows * self.values.shape[2]

    def total(self, weights: Float[Tensor, " n"]) -> Float[Tensor, " rd"]:
        """Return the weighted sum Σ_a w_a γ_a [rows·d]."""
        values = weighted(self.values, weights).flatten(0, 1)
        return values.new_zeros(self.rows, values.shape[1]).index_add_(0, self.index.flatten(), values).flatten()

    def dense(self) -> Dense:
        """Return the gradients themselves."""
        return Dense(scattered(self.index, self.values, self.rows))

    def largest(self) -> Float[Tensor, " n"]:
        """Return the largest magnitude among each example's values."""
        return largest(self.values)

    def times(self, weights: Float[Tensor, " n"]) -> "Rows":
        """Return w_a γ_a."""
        return Rows(self.index, weighted(self.values, weights), self.rows)

    def paired(self, examples: int) -> "Rows | None":  # noqa: ARG002 - at any number of examples
        """Return this object for a table that is mostly 0."""
        return self if self.rows > MOSTLY * self.index.shape[1] else None


def scattered(index: Int[Tensor, "n s"], values: Float[Tensor, "n s d"], rows: int) -> Float[Tensor, "n rd"]:
    """Add values to the rows of one table per example, and flatten the tables.

    Args:
        index: The rows that the values are added to [n, s].
        values: The values [n, s, d].
        rows: The number of rows of a table.

    Returns:
        The tables [n, rows·d].
    """
    first = torch.arange(len(values), device=index.device).unsqueeze(1) * rows  # of each table, one below the other
    tables = values.new_zeros(len(values) * rows, values.shape[2])
    return tables.index_add_(0, (index + first).flatten(), values.flatten(0, 1)).view(len(values), -1)
