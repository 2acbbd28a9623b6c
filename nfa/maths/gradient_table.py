"""Per-example gradients that are written out: a row for each example, in a table for each parameter."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.accumulate import add_gram, symmetric
from nfa.maths.example_gradients import Part, Piece
from nfa.maths.gradient_parts import summed

NARROW = 2**10  # entries of parameters that share a table, at most
SIDE = 48  # of a Gram matrix, up to which one triangle costs as much as all products
Kind = tuple[torch.dtype, torch.device]  # of numbers that can share memory


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
        used: Memory that is no longer needed, which is taken where it fits: new memory costs as much as writing it.
        at_once: Whether gradients are multiplied when they are written, and not kept: all examples come together, and
            there are no others.
    """

    def __init__(
        self,
        examples: int,
        like: "GradientTables | None" = None,
        used: Sequence[Tensor] = (),
        *,
        at_once: bool = False,
    ) -> None:
        self.examples, self.at_once = examples, at_once
        self._used = [one for one in used if len(one) == examples]
        self.tables: list[Tensor] = [self._new(of, of.shape[1]) for of in (like.tables if like else ())]
        self.places: dict[Hashable, list[Place]] = dict(like.places) if like else {}
        self._narrow: dict[Hashable, Part] = {}  # parameters that come for the first time and will share a table
        self._written: set[Hashable] = set()
        self._scratch: dict[Kind, Tensor] = {}
        self._total = torch.zeros(examples, examples, dtype=torch.float64)

    @property
    def memory(self) -> list[Tensor]:
        """What other tables may use when these are no longer needed."""
        return [*self.tables, *self._scratch.values()]

    def write(self, rows: slice, key: Hashable, parts: Sequence[Part]) -> None:
        """Write the gradients of some examples.

        Args:
            rows: The examples.
            key: The parameter.
            parts: The summands of its gradients.
        """
        part = summed(parts)
        if part.entries <= NARROW and key not in self.places:
            self._narrow[key] = part
        elif self.at_once and part.entries > NARROW:
            for block in part.blocks(self._room):
                self._total += _gram(block)
        else:
            self._write(rows, key, part)

    def _write(self, rows: slice, key: Hashable, part: Part) -> None:
        for entries in part.column_blocks() if key not in self.places else ():
            self._add_table(rows, part, {key: entries})
        self._written.add(key)
        part.write([Piece(self.tables[table][rows, columns], entries) for table, columns, entries in self.places[key]])

    def end(self, rows: slice) -> None:
        """Say that all gradients of some examples are written; those of other parameters are 0."""
        for kind in dict.fromkeys(_kind(part.tensors[-1]) for part in self._narrow.values()):
            alike = {key: part for key, part in self._narrow.items() if _kind(part.tensors[-1]) == kind}
            like = next(iter(alike.values()))
            self._add_table(rows, like, {key: slice(0, part.entries) for key, part in alike.items()})
        for key, part in self._narrow.items():
            self._write(rows, key, part)
        for key in self.places.keys() - self._written:
            for table, columns, _ in self.places[key]:
                self.tables[table][rows, columns] = 0
        self._narrow.clear()
        self._written.clear()

    def _add_table(self, rows: slice, like: Part, wanted: Mapping[Hashable, slice]) -> None:
        """Add a table for entries of further parameters, whose gradients were 0 before these rows."""
        width = 0
        for key, entries in wanted.items():
            start, width = width, width + entries.stop - entries.start
            self.places.setdefault(key, []).append(Place(len(self.tables), slice(start, width), entries))
        self.tables.append(self._new(like.tensors[-1], width))
        self.tables[-1][: rows.start] = 0

    def _room(self, like: Tensor, columns: int) -> Float[Tensor, "n c"]:
        """Return a table that the next one overwrites."""
        kind = _kind(like)
        if kind not in self._scratch or self._scratch[kind].shape[1] < columns:
            self._used.sort(key=lambda one: -one.shape[1])
            self._scratch[kind] = self._new(like, columns, wider=True)
        return self._scratch[kind].view(-1)[: self.examples * columns].view(self.examples, columns)

    def _new(self, like: Tensor, width: int, *, wider: bool = False) -> Tensor:
        """Return a table with any content."""
        for place, one in enumerate(self._used):
            fits = one.shape[1] >= width if wider else one.shape[1] == width
            if fits and _kind(one) == _kind(like):
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
        return torch.stack([self._total, *map(_gram, self.tables)]).sum(dim=0)


def _kind(tensor: Tensor) -> Kind:
    return tensor.dtype, tensor.device


def _gram(table: Float[Tensor, "n c"]) -> Float[Tensor, "n n"]:
    """Return the inner products of the rows in float64."""
    if len(table) <= SIDE:
        return (table @ table.T).double().cpu()
    products = table.new_zeros(len(table), len(table))
    add_gram(products, table.T, least=SIDE)
    return symmetric(products).double().cpu()
