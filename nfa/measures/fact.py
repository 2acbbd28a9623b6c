"""FACT: how a site's loss gradients pair with its inputs."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.accumulate import add_product
from nfa.maths.congruence import Congruence, PairedMean
from nfa.maths.example_matrices import PairedProducts
from nfa.maths.standard_errors import SampleMean
from nfa.measures.first_examples import MOST, FirstExamples
from nfa.measures.sides import Positions, by_example, rows_of
from nfa.observe.records import Part, Record, Source
from nfa.parallel import World


class Fact:
    """Accumulate FACT = sym(E[g hᵀ]) [i, i] with g = −Wᵀδ: −½(WᵀP + PᵀW) with P = E[δ hᵀ] [o, i]. arXiv 2507.05644.

    At a stationary point of a loss averaged over examples with L2 penalty λ, λ WᵀW = E[g hᵀ], so FACT and NFM align.

    Args:
        weight: The weight W [o, i] of the site.
        positions: "each" pairs δ and h of the same position, which is the gradient of W; "sum" pairs their sums over s.
        keep: How many examples are stored for standard errors.
    """

    source = Source.LOSS
    needs = frozenset({Part.INPUTS})

    def __init__(self, weight: Float[Tensor, "o i"], *, positions: Positions = "each", keep: int = 0) -> None:
        self.weight = weight
        self.first = FirstExamples(min(keep, MOST))
        self.positions: Positions = positions
        self.kept: tuple[Tensor, Tensor] | None = None
        self.total = weight.new_zeros(weight.shape)
        self.examples = 0

    def update(self, record: Record) -> None:
        """Add one batch."""
        assert record.gradient is not None
        assert record.inputs is not None
        self.examples += len(record.inputs)
        pair = [rows_of(rows, self.positions) for rows in (record.gradient, record.inputs)]
        if self.first.most:
            self.first.add(by_example(torch.cat(pair, dim=1), len(record.inputs)))
        add_product(self.total, *pair)

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        self.kept = self.first.collected(world, self.examples)
        self.total, self.examples = world.sum(self.total), world.count(self.examples)

    def value(self) -> Congruence | SampleMean:
        """Return FACT, with the matrices of the first examples if any are stored; ValueError before the first record.
        """
        if self.kept is None:
            return self._matrix()
        deltas, inputs = self.kept[0].flatten(1, 2).split(self.weight.shape, dim=2)
        return SampleMean(self._matrix(), PairedProducts(deltas, inputs, self.weight, self.kept[1]))

    def _matrix(self) -> PairedMean:
        """Return [W; P]ᵀ C [W; P], where C exchanges W and P and multiplies by −½; dense where i is the smaller side.
        """
        if not self.examples:
            raise ValueError("a mean over no examples")
        rows, features = self.weight.shape
        mean = self.total / self.examples
        if features < 2 * rows:
            half = self.weight.T @ mean
            return PairedMean(None, -0.5 * (half + half.T), mean)
        alike = _ratio(self.weight, mean)  # so that products of W and of P with themselves are of one size
        exchange = torch.eye(2 * rows, dtype=self.weight.dtype, device=self.weight.device).roll(rows, dims=0)
        return PairedMean(torch.cat([self.weight, alike * mean]), -0.5 / alike * exchange, mean)


def _ratio(weight: Tensor, mean: Tensor) -> float:
    """Return the power of two by which the largest entries differ; 1 where one of them is 0 or not finite."""
    largest = [float(part.abs().max()) if part.numel() else 0.0 for part in (weight, mean)]
    if not all(0 < one < math.inf for one in largest):
        return 1.0
    of_weight, of_mean = (math.frexp(one)[1] for one in largest)
    return 2.0 ** max(-100, min(100, of_weight - of_mean))
