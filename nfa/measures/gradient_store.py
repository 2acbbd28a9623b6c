"""Per-example gradients of some examples, each parameter in the form that makes their Gram matrix cheapest."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.example_gradients import Part
from nfa.maths.gradient_inner_products import inner
from nfa.maths.gradient_table import GradientTables
from nfa.observe.example_gradients import BatchGradients
from nfa.observe.parameter_regions import Region

Parts = Mapping[Region, Sequence[Part]]


class GradientStore:
    """Collect gradients batch by batch: as factors where pairs of these are cheaper to multiply, else written out.

    Args:
        examples: The number of examples of the store.
        of: The number of examples of the whole Gram matrix, on which the choice depends.
        like: A store of other examples, whose choices this one follows, so that both can be multiplied.

    Attributes:
        pairs: The pairs of examples whose factors have been multiplied.
        products: The products of rows that are written out.
    """

    def __init__(self, examples: int, of: int, like: "GradientStore | None" = None) -> None:
        self.of = of
        self.tables = GradientTables(examples, like.tables if like else None)
        self.scale = torch.ones(examples, dtype=torch.float64)
        self.pairs = self.products = 0
        self._in_pairs: set[Region] = like._in_pairs if like else set()
        self._kept: list[tuple[slice, Parts]] = []

    def put(self, rows: slice, gradients: BatchGradients) -> None:
        """Add the gradients of a batch.

        Args:
            rows: The places of the batch among the examples.
            gradients: The gradients.
        """
        new = [key for key in gradients.parts if key not in self.tables.places and key not in self._in_pairs]
        self._in_pairs |= {key for key in new if in_pairs(gradients.parts[key], self.of)}
        kept = {key: parts for key, parts in gradients.parts.items() if key in self._in_pairs}
        self._kept.append((rows, {key: in_pairs(parts, self.of) or parts for key, parts in kept.items()}))
        self.tables.write(rows, {key: parts for key, parts in gradients.parts.items() if key not in kept})
        self.scale[rows] = gradients.scale.cpu()

    def gram(self) -> Float[Tensor, "n n"]:
        """Return the inner products of all pairs of examples.

        Returns:
            The Gram matrix [n, n] in float64.
        """
        total = self.tables.gram()
        self.products += len(total) * (len(total) + 1) // 2
        for index, (rows, a) in enumerate(self._kept):
            for columns, b in self._kept[index:]:
                total[rows, columns] += self._multiplied(a, b, total[rows, columns])
        upper = total.triu()  # rounding is not symmetric
        return self.scale[:, None] * (upper + upper.triu(1).T) * self.scale

    def with_other(self, other: "GradientStore") -> Float[Tensor, "n m"]:
        """Return the inner products with the gradients of m other examples.

        Args:
            other: Their store, which was made like this one.

        Returns:
            The inner products [n, m] in float64.
        """
        total = self.tables.products(other.tables)
        self.products += total.numel()
        for rows, a in self._kept:
            for columns, b in other._kept:
                total[rows, columns] += self._multiplied(a, b, total[rows, columns])
        return self.scale[:, None] * total * other.scale

    def _multiplied(self, a: Parts, b: Parts, like: Tensor) -> Tensor:
        found = torch.zeros_like(like)
        for key in [key for key in a if key in b]:
            found += inner(a[key], b[key]).double().cpu()
        self.pairs += found.numel() if a else 0
        return found


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


def numbers(gradients: BatchGradients, examples: int) -> int:
    """Return how many numbers a store holds for each example.

    Args:
        gradients: The gradients of a few examples.
        examples: The number of examples of the Gram matrix.

    Returns:
        The number.
    """
    forms = ((parts, in_pairs(parts, examples)) for parts in gradients.parts.values())
    return sum(sum(part.numbers for part in pairs) if pairs else parts[0].entries for parts, pairs in forms)
