"""Uncentred second moments of what goes into a site, comes out of it, and flows back through it."""

import hashlib
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.accumulate import add_gram, add_product, symmetric
from nfa.maths.congruence import Congruence
from nfa.measures.sides import Positions, PulledBack, rows_of
from nfa.observe.records import Part, Record, Source
from nfa.parallel import World


class Moment:
    """E[x xᵀ] of rows x, streamed; positions are added up (each outer product, or that of their sum)."""

    def __init__(self, features: int, positions: Positions, like: Tensor) -> None:
        self.positions: Positions = positions
        self.total = like.new_zeros((features, features))
        self.examples = 0

    def add(self, rows: Float[Tensor, "n s f"]) -> None:
        """Add a batch."""
        self.examples += len(rows)
        add_gram(self.total, rows_of(rows, self.positions))

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        self.total, self.examples = world.sum(self.total), world.count(self.examples)

    def mean(self) -> Congruence:
        """The mean over examples; ValueError where there are none."""
        if not self.examples:
            raise ValueError("a mean over no examples")
        return Congruence(None, symmetric(self.total) / self.examples)


class InputMoment:
    """H = E[h hᵀ] [i i], h the site's input. Ziyin et al. 2024, arXiv 2410.03006.

    Where h depends on no trainable parameter, as in the first layer, H is the same at every checkpoint: `known` is what
    `remembered()` gave at another one, and is taken over if the first record is bitwise the same.
    """

    source = Source.FORWARD

    def __init__(
        self, weight: Float[Tensor, "o i"], *, positions: Positions = "each", known: "KnownMoment | None" = None
    ) -> None:
        self.moment = Moment(weight.shape[1], positions, weight)
        self.known = known
        self.first = ""
        self.fixed = True

    @property
    def needs(self) -> frozenset[Part]:
        """Nothing any more once the known H has turned out to be right."""
        return frozenset() if self.is_known else frozenset({Part.INPUTS})

    @property
    def is_known(self) -> bool:
        return self.known is not None and self.first == self.known.first

    def update(self, record: Record) -> None:
        if self.is_known:
            return
        assert record.inputs is not None
        if not self.first and record.fixed:
            self.first = _digest(record.inputs)
            if self.is_known:
                return
        self.fixed = self.fixed and record.fixed
        self.moment.add(record.inputs)

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        agreeing = world.count(int(self.is_known))
        if agreeing not in (0, world.size):
            raise RuntimeError("a layer's input is the same as before in some processes only")
        if not self.is_known:
            self.moment.reduce(world)

    def value(self) -> Congruence:
        """H."""
        return self.known.matrix if self.known and self.is_known else self.moment.mean()

    def remembered(self) -> "KnownMoment | None":
        """What to give as `known` at the next checkpoint; None where h depends on trained parameters."""
        return KnownMoment(self.first, self.value()) if self.fixed else None


class KnownMoment(NamedTuple):
    """H, and what tells the inputs that it was measured on."""

    first: str
    matrix: Congruence


def _digest(inputs: Tensor) -> str:
    return hashlib.blake2b(inputs.detach().cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()


class OutputMoment:
    """H′ = E[z zᵀ] [o o], z the site's output before its activation. arXiv 2410.03006."""

    source = Source.FORWARD
    needs = frozenset({Part.OUTPUTS})

    def __init__(self, weight: Float[Tensor, "o i"], *, positions: Positions = "each") -> None:
        self.moment = Moment(weight.shape[0], positions, weight)

    def update(self, record: Record) -> None:
        assert record.outputs is not None
        self.moment.add(record.outputs)

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        self.moment.reduce(world)

    def value(self) -> Congruence:
        """H′."""
        return self.moment.mean()


class GradientMoment:
    """G = E[g gᵀ] [i i] with g = −∂ℓ/∂h = −Wᵀδ, so G = Wᵀ E[δ δᵀ] W; and G′ = E[δ δᵀ] [o o] on the output side.

    δ = ∂ℓ/∂z is the gradient of each example's own loss, so the value does not depend on the batch size. G′ can be
    read where `output_side` was asked for. arXiv 2410.03006.
    """

    source = Source.LOSS
    needs: frozenset[Part] = frozenset()

    def __init__(
        self, weight: Float[Tensor, "o i"], *, positions: Positions = "each", output_side: bool = False
    ) -> None:
        self.sum = PulledBack(weight, keep_output_side=output_side)
        self.positions: Positions = positions
        self.examples = 0

    def update(self, record: Record) -> None:
        assert record.gradient is not None
        self.examples += len(record.gradient)
        self.sum.add(self.sum.moved(rows_of(record.gradient, self.positions)))

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        self.sum.reduce(world)
        self.examples = world.count(self.examples)

    def value(self) -> Congruence:
        """G."""
        return self.sum.mean(self.examples)

    def output_side(self) -> Congruence:
        """G′; ValueError where it was not kept."""
        if self.sum.on_input_side:
            raise ValueError("G′ was not accumulated; ask for output_side")
        return Congruence(None, self.sum.core(self.examples))


class Fact:
    """FACT = sym(E[g hᵀ]) [i i] with g = −Wᵀδ: −½(WᵀP + PᵀW), P = E[δ hᵀ] [o i]. arXiv 2507.05644.

    At a stationary point with L2 penalty λ (and a loss averaged over examples) λ WᵀW = E[g hᵀ], so FACT and NFM align.
    `positions="each"` pairs δ and h of the same position, which is the gradient of W; "sum" pairs their sums.
    """

    source = Source.LOSS
    needs = frozenset({Part.INPUTS})

    def __init__(self, weight: Float[Tensor, "o i"], *, positions: Positions = "each") -> None:
        self.weight = weight
        self.positions: Positions = positions
        self.total = weight.new_zeros(weight.shape)
        self.examples = 0

    def update(self, record: Record) -> None:
        assert record.gradient is not None
        assert record.inputs is not None
        self.examples += len(record.inputs)
        add_product(self.total, rows_of(record.gradient, self.positions), rows_of(record.inputs, self.positions))

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        self.total, self.examples = world.sum(self.total), world.count(self.examples)

    def value(self) -> Congruence:
        """FACT, as [W; P]ᵀ C [W; P] with C the exchange of W and P times −½; dense where i is the smaller side."""
        if not self.examples:
            raise ValueError("a mean over no examples")
        rows, features = self.weight.shape
        mean = self.total / self.examples
        if features < 2 * rows:
            half = self.weight.T @ mean
            return Congruence(None, -0.5 * (half + half.T))
        exchange = torch.eye(2 * rows, dtype=self.weight.dtype, device=self.weight.device).roll(rows, dims=0)
        return Congruence(torch.cat([self.weight, mean]), -0.5 * exchange)
