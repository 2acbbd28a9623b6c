"""Per-example gradients of some examples, each parameter in the form that makes their Gram matrix cheapest."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.example_gradients import Dense, Part
from nfa.maths.gradient_inner_products import inner
from nfa.maths.gradient_sketch import BLOCKS, Projection, paired_differences
from nfa.maths.gradient_table import GradientTables
from nfa.observe.example_gradients import BatchGradients
from nfa.observe.parameter_regions import Region

LEAST = 1e-26  # squared length of a gradient whose entries are multiplied in float32
Parts = Mapping[Region, Sequence[Part]]
Sketches = Mapping[Region, Projection]


class GradientStore:
    """Collect gradients batch by batch: as factors where pairs of these are cheaper to multiply, as sketches, or
    written out.

    Args:
        examples: The number of examples of the store.
        of: The number of examples of the whole Gram matrix, on which the choice depends.
        sketches: The parameters whose gradients are sketched, and how.
        like: A store of other examples, whose choices this one follows, so that both can be multiplied.
        used: Memory of an earlier store, which is used again.
        at_once: Whether one batch brings all examples, and there are no others: gradients are then multiplied when they
            come, and not kept.

    Attributes:
        pairs: The pairs of examples whose factors have been multiplied.
        products: The products of rows that are written out.
        in_range: Whether the Gram matrix was made of numbers whose products float32 can hold.
    """

    def __init__(
        self,
        examples: int,
        of: int,
        sketches: Sketches,
        like: "GradientStore | None" = None,
        used: Sequence[Tensor] = (),
        *,
        at_once: bool = False,
    ) -> None:
        self.of, self.sketches = of, sketches
        self.tables: GradientTables = GradientTables(examples, like.tables if like else None, used, at_once=at_once)
        self.scale = torch.ones(examples, dtype=torch.float64)
        self.pairs = self.products = 0
        self.in_range = True
        self._in_pairs: set[Region] = like._in_pairs if like else set()
        self._kept: list[tuple[slice, Parts]] = []
        self._batch: dict[Region, Sequence[Part]] = {}  # what is to be kept of the batch that comes in
        self._total = torch.zeros(examples, examples, dtype=torch.float64)  # of factors that are not kept
        self._sketched: dict[Region, Tensor] = {}

    def put(self, rows: slice, key: Region, parts: Sequence[Part]) -> None:
        """Add the gradients of one parameter.

        Args:
            rows: The places of a batch among the examples.
            key: The parameter.
            parts: The summands of its gradients.
        """
        if key in self.sketches:
            values = self.sketches[key](parts).values
            self._sketched.setdefault(key, values.new_zeros(len(self.scale), values.shape[1]))[rows] = values
        elif pairs := self._pairs(key, parts):
            self._put_pairs(key, pairs)
        else:
            self.tables.write(rows, key, parts)

    def end(self, rows: slice, scale: Float[Tensor, " b"]) -> None:
        """Say that all gradients of a batch are there.

        Args:
            rows: The places of the batch among the examples.
            scale: The scale of each example's gradients.
        """
        self.tables.end(rows)
        self.scale[rows] = scale.cpu()
        self._kept.append((rows, self._batch))
        self._batch = {}

    def _pairs(self, key: Region, parts: Sequence[Part]) -> Sequence[Part] | None:
        """Return the forms in which pairs are multiplied, of a parameter for which they are once and for all."""
        if key in self.tables.places:
            return None
        found = in_pairs(parts, self.of)
        if found:
            self._in_pairs.add(key)
        return found or (parts if key in self._in_pairs else None)

    def _put_pairs(self, key: Region, parts: Sequence[Part]) -> None:
        if self.tables.at_once:
            self._total += inner(parts, parts).double().cpu()
            self.pairs = self._total.numel()
        else:
            self._batch[key] = parts

    def gram(self, groups: int = 0) -> Float[Tensor, "g n n"]:
        """Return the inner products of all pairs of examples, and how the errors of sketches may move them.

        Args:
            groups: The number of independent shifts.

        Returns:
            The Gram matrix [n, n] in float64, followed by the shifts.
        """
        total = self._total + self.tables.gram()
        self.products += total.numel()
        for index, (rows, a) in enumerate(self._kept):
            for columns, b in self._kept[index:]:
                total[rows, columns] += self._multiplied(a, b, total[rows, columns])
        self.in_range = _are_in_range(total.diagonal()[self.scale > 0])
        upper = total.triu()  # rounding is not symmetric
        found = self._with_sketches(self, upper + upper.triu(1).T, groups)
        return (found + found.mT) / 2

    def with_other(self, other: "GradientStore", groups: int = 0) -> Float[Tensor, "g n m"]:
        """Return the inner products with the gradients of m other examples, and shifts, as `gram` does.

        Args:
            other: Their store, which was made like this one.
            groups: The number of independent shifts.

        Returns:
            The inner products [n, m] in float64, followed by the shifts.
        """
        total = self.tables.products(other.tables)
        self.products += total.numel()
        for rows, a in self._kept:
            for columns, b in other._kept:
                total[rows, columns] += self._multiplied(a, b, total[rows, columns])
        return self._with_sketches(other, total, groups)

    def _multiplied(self, a: Parts, b: Parts, like: Tensor) -> Tensor:
        found = torch.zeros_like(like)
        for key in [key for key in a if key in b]:
            found += inner(a[key], b[key]).double().cpu()
        self.pairs += found.numel() if a else 0
        return found

    def _with_sketches(self, other: "GradientStore", exact: Tensor, groups: int) -> Float[Tensor, "g n m"]:
        """Return the products of exact and sketched gradients, and their shifts, with the scales of the gradients."""
        total = torch.zeros(1 + groups, *exact.shape, dtype=torch.float64)
        total[0] = exact
        for place, (key, sketch) in enumerate(self.sketches.items()):
            if key not in self._sketched or key not in other._sketched:
                continue
            products = sketch.products(Dense(self._sketched[key]), Dense(other._sketched[key])).double().cpu()
            total[0] += products.sum(dim=0)
            for pair, shift in enumerate(paired_differences(products), place * BLOCKS // 2):
                total[1 + pair % groups] += shift
        return self.scale[:, None] * total * other.scale


def _are_in_range(squares: Float[Tensor, " n"]) -> bool:
    """Tell whether squared lengths are far from where float32 numbers end; a length of 0 may be one that was lost."""
    return bool(((squares > LEAST) & (squares < 1 / LEAST)).all())


def in_pairs(parts: Sequence[Part], examples: int) -> list[Part] | None:
    """Return the summands of gradients in the forms in which pairs are multiplied; None if they are to be written out.

    Args:
        parts: The summands.
        examples: The number of examples of the Gram matrix.

    Returns:
        The summands, or None.
    """
    found = [part.paired(examples) for part in parts]
    return [one or part.dense() for one, part in zip(found, parts, strict=True)] if any(found) else None


def numbers(gradients: BatchGradients, examples: int, sketches: Sketches) -> int:
    """Return how many numbers a store holds for each example.

    Args:
        gradients: The gradients of a few examples.
        examples: The number of examples of the Gram matrix.
        sketches: The parameters whose gradients are sketched, and how.

    Returns:
        The number.
    """
    exact = [parts for key, parts in gradients.parts.items() if key not in sketches]
    forms = ((parts, in_pairs(parts, examples)) for parts in exact)
    held = sum(sum(part.numbers for part in pairs) if pairs else parts[0].entries for parts, pairs in forms)
    return held + sum(one.kept * one.vectors.shape[1] for key, one in sketches.items() if key in gradients.parts)
