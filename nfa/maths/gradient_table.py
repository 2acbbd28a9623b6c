"""Per-example gradients that are written out: a row for each example, in tables that many parameters share."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.accumulate import add_gram, symmetric
from nfa.maths.example_gradients import Part, Piece

COLUMNS = 2**16  # of one table; float32 would lose digits in products over more
SIDE = 48  # of a Gram matrix, up to which one triangle costs as much as all products


class Place(NamedTuple):
    """Some entries of a parameter, and the columns of a table that hold them."""

    table: int
    columns: slice
    entries: slice


class GradientTables:
    """The gradients of n examples by parameter; a parameter that is never written has gradients of 0.

    Args:
        examples: The number of examples n.
        like: Other tables, whose columns these have too, so that both can be multiplied.
        used: Tables that are no longer needed, which are taken where they fit: new memory costs as much as writing it.
    """

    def __init__(self, examples: int, like: "GradientTables | None" = None, used: Sequence[Tensor] = ()) -> None:
        self.examples, self._used = examples, [one for one in used if len(one) == examples]
        self.tables: list[Tensor] = [self._table(of, of.shape[1]) for of in (like.tables if like else ())]
        self.places: dict[Hashable, list[Place]] = dict(like.places) if like else {}

    def write(self, rows: slice, gradients: Mapping[Hashable, Sequence[Part]]) -> None:
        """Write the gradients of some examples.

        Args:
            rows: The examples.
            gradients: The summands of the gradients by parameter.
        """
        self._add_columns({key: parts for key, parts in gradients.items() if key not in self.places}, rows.start)
        for key, places in self.places.items():
            pieces = [Piece(self.tables[table][rows, columns], entries) for table, columns, entries in places]
            _write(gradients.get(key, ()), pieces)

    def _add_columns(self, gradients: Mapping[Hashable, Sequence[Part]], before: int) -> None:
        """Make tables of at most `COLUMNS` columns for further parameters, whose gradients were 0 before that row."""
        widths: list[int] = []
        for key, (part, *_) in gradients.items():
            most = max(1, COLUMNS // part.row) * part.row
            self.places[key] = []
            for start in range(0, part.entries, most):
                entries = slice(start, min(start + most, part.entries))
                width = entries.stop - entries.start
                if not widths or widths[-1] + width > COLUMNS:
                    widths.append(0)
                columns = slice(widths[-1], widths[-1] + width)
                widths[-1] = columns.stop
                self.places[key].append(Place(len(self.tables) + len(widths) - 1, columns, entries))
        like = [parts[0].tensors[-1] for parts in gradients.values()][:1]
        for width in widths:
            self.tables.append(self._table(like[0], width))
            self.tables[-1][:before] = 0

    def _table(self, like: Tensor, width: int) -> Tensor:
        """Return a table with any content."""
        for place, one in enumerate(self._used):
            if one.shape[1] == width and (one.dtype, one.device) == (like.dtype, like.device):
                return self._used.pop(place)
        return like.new_empty(self.examples, width)

    def products(self, other: "GradientTables") -> Float[Tensor, "n m"]:
        """Return the inner products with the gradients in other tables, in float64.

        Args:
            other: The tables of m other examples.

        Returns:
            The inner products [n, m].
        """
        total = torch.zeros(self.examples, other.examples, dtype=torch.float64)
        for a, b in zip(self.tables, other.tables, strict=False):  # a parameter that only one has gives 0
            total += (a @ b.T).double().cpu()
        return total

    def gram(self) -> Float[Tensor, "n n"]:
        """Return the inner products of all pairs of examples, in float64.

        Returns:
            The Gram matrix [n, n].
        """
        total = torch.zeros(self.examples, self.examples, dtype=torch.float64)
        for table in self.tables:
            products = table.new_zeros(self.examples, self.examples)
            add_gram(products, table.T, least=SIDE)
            total += symmetric(products).double().cpu()
        return total


def _write(parts: Sequence[Part], pieces: Sequence[Piece]) -> None:
    """Write the sum of some parts."""
    for out, _ in pieces if not parts else ():
        out.zero_()
    for index, part in enumerate(parts):
        if not index:
            part.write(pieces)
            continue
        values = part.dense().values
        for out, entries in pieces:
            out += values[:, entries]
