"""Uncentred second moments of what goes into a site, comes out of it, and flows back through it."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.accumulate import add_gram, symmetric
from nfa.maths.congruence import Congruence
from nfa.observe.records import Record, Source

Positions = Literal["each", "sum"]


class Moment:
    """E[x xᵀ] of rows x, streamed; positions are added up (each outer product, or that of their sum)."""

    def __init__(self, features: int, positions: Positions, like: Tensor) -> None:
        self.positions = positions
        self.total = like.new_zeros((features, features))
        self.examples = 0

    def add(self, rows: Float[Tensor, "n s f"]) -> None:
        """Add a batch."""
        self.examples += len(rows)
        add_gram(self.total, rows.sum(dim=1) if self.positions == "sum" else rows.flatten(0, 1))

    def mean(self) -> Float[Tensor, "f f"]:
        """The mean over examples."""
        return symmetric(self.total) / self.examples


class InputMoment:
    """H = E[h hᵀ] [i i], h the site's input. Ziyin et al. 2024, arXiv 2410.03006."""

    source = Source.INPUT

    def __init__(self, weight: Float[Tensor, "o i"], *, positions: Positions = "each") -> None:
        self.moment = Moment(weight.shape[1], positions, weight)

    def update(self, record: Record) -> None:
        self.moment.add(record.inputs)

    def value(self) -> Congruence:
        """H."""
        return Congruence(None, self.moment.mean())


class GradientMoment:
    """G = E[g gᵀ] [i i] with g = −∂ℓ/∂h = −Wᵀδ, so G = Wᵀ E[δ δᵀ] W; and G′ = E[δ δᵀ] [o o] on the output side.

    δ = ∂ℓ/∂z is the gradient of each example's own loss, so the value does not depend on the batch size.
    """

    source = Source.LOSS

    def __init__(self, weight: Float[Tensor, "o i"], *, positions: Positions = "each") -> None:
        self.weight = weight
        self.moment = Moment(weight.shape[0], positions, weight)

    def update(self, record: Record) -> None:
        assert record.gradient is not None
        self.moment.add(record.gradient)

    def value(self) -> Congruence:
        """G."""
        return Congruence(self.weight, self.moment.mean())

    def output_side(self) -> Congruence:
        """G′."""
        return Congruence(None, self.moment.mean())


class Fact:
    """FACT = sym(E[g hᵀ]) [i i] with g = −Wᵀδ: −½(WᵀP + PᵀW), P = E[δ hᵀ] [o i]. arXiv 2507.05644.

    At a stationary point with L2 penalty λ (and a loss averaged over examples) λ WᵀW = E[g hᵀ], so FACT and NFM align.
    `positions="each"` pairs δ and h of the same position, which is the gradient of W; "sum" pairs their sums.
    """

    source = Source.LOSS

    def __init__(self, weight: Float[Tensor, "o i"], *, positions: Positions = "each") -> None:
        self.weight, self.positions = weight, positions
        self.total = torch.zeros_like(weight)
        self.examples = 0

    def update(self, record: Record) -> None:
        assert record.gradient is not None
        self.examples += len(record.inputs)
        if self.positions == "sum":
            self.total.addmm_(record.gradient.sum(dim=1).T, record.inputs.sum(dim=1))
        else:
            self.total.addmm_(record.gradient.flatten(0, 1).T, record.inputs.flatten(0, 1))

    def value(self) -> Congruence:
        """FACT, as [W; P]ᵀ C [W; P] with C the exchange of W and P times −½."""
        rows = self.weight.shape[0]
        exchange = torch.eye(2 * rows, dtype=self.weight.dtype, device=self.weight.device).roll(rows, dims=0)
        return Congruence(torch.cat([self.weight, self.total / self.examples]), -0.5 * exchange)
