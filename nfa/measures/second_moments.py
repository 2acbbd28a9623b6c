"""Uncentred second moments of a site's input, output and loss gradient."""

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
    """Accumulate E[x xᵀ] of rows x; an example's positions are added up (each outer product, or that of their sum).

    Args:
        features: The number of entries of x.
        positions: "each" or "sum".
        like: A tensor whose type and device are used.
    """

    def __init__(self, features: int, positions: Positions, like: Tensor) -> None:
        self.positions: Positions = positions
        self.total = like.new_zeros((features, features))
        self.examples = 0

    def add(self, rows: Float[Tensor, "n s f"]) -> None:
        """Add a batch of rows [n, s, f]."""
        self.examples += len(rows)
        add_gram(self.total, rows_of(rows, self.positions))

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        self.total, self.examples = world.sum(self.total), world.count(self.examples)

    def mean(self) -> Congruence:
        """Return the mean over examples; raises ValueError where there are none."""
        if not self.examples:
            raise ValueError("a mean over no examples")
        return Congruence(None, symmetric(self.total) / self.examples)


class InputMoment:
    """Accumulate H = E[h hᵀ] [i, i], where h is the site's input. Ziyin et al. 2024, arXiv 2410.03006.

    Where h depends on no trainable parameter, as in the first layer, H is the same at every checkpoint and need not be
    measured again.

    Args:
        weight: The weight W [o, i] of the site.
        positions: "each" adds up the outer products of all positions s; "sum" takes the outer product of the sum over
            s.
        known: What `remembered()` returned at another checkpoint; it is used if the first record is bitwise the same.
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
        """The inputs, until the known H has turned out to be right."""
        return frozenset() if self.is_known else frozenset({Part.INPUTS})

    @property
    def is_known(self) -> bool:
        """Whether the known H is that of these inputs."""
        return self.known is not None and self.first == self.known.first

    def update(self, record: Record) -> None:
        """Add one batch."""
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
        """Return H."""
        return self.known.matrix if self.known and self.is_known else self.moment.mean()

    def remembered(self) -> "KnownMoment | None":
        """Return what to pass as `known` at the next checkpoint; None where h depends on trainable parameters."""
        return KnownMoment(self.first, self.value()) if self.fixed else None


class KnownMoment(NamedTuple):
    """H, and a digest of the inputs it was measured on."""

    first: str
    matrix: Congruence


def _digest(inputs: Tensor) -> str:
    return hashlib.blake2b(inputs.detach().cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()


class OutputMoment:
    """Accumulate H′ = E[z zᵀ] [o, o], where z is the site's output before its activation. arXiv 2410.03006.

    Args:
        weight: The weight W [o, i] of the site.
        positions: "each" adds up the outer products of all positions s; "sum" takes the outer product of the sum over
            s.
    """

    source = Source.FORWARD
    needs = frozenset({Part.OUTPUTS})

    def __init__(self, weight: Float[Tensor, "o i"], *, positions: Positions = "each") -> None:
        self.moment = Moment(weight.shape[0], positions, weight)

    def update(self, record: Record) -> None:
        """Add one batch."""
        assert record.outputs is not None
        self.moment.add(record.outputs)

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        self.moment.reduce(world)

    def value(self) -> Congruence:
        """Return H′."""
        return self.moment.mean()


class GradientMoment:
    """Accumulate G = E[g gᵀ] [i, i] with g = −∂ℓ/∂h = −Wᵀδ, that is G = Wᵀ E[δ δᵀ] W.

    δ = ∂ℓ/∂z is the gradient of each example's own loss, so the value does not depend on the batch size. On the output
    side the same sum gives G′ = E[δ δᵀ] [o, o]. arXiv 2410.03006.

    Args:
        weight: The weight W [o, i] of the site.
        positions: "each" adds up the outer products of all positions s; "sum" takes the outer product of the sum over
            s.
        output_side: Whether G′ will be read as well.
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
        """Add the loss gradients of one batch."""
        assert record.gradient is not None
        self.examples += len(record.gradient)
        self.sum.add(self.sum.moved(rows_of(record.gradient, self.positions)))

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        self.sum.reduce(world)
        self.examples = world.count(self.examples)

    def value(self) -> Congruence:
        """Return G."""
        return self.sum.mean(self.examples)

    def output_side(self) -> Congruence:
        """Return G′; raises ValueError where it was not accumulated."""
        if self.sum.on_input_side:
            raise ValueError("G′ was not accumulated; ask for output_side")
        return Congruence(None, self.sum.core(self.examples))


class Fact:
    """Accumulate FACT = sym(E[g hᵀ]) [i, i] with g = −Wᵀδ: −½(WᵀP + PᵀW) with P = E[δ hᵀ] [o, i]. arXiv 2507.05644.

    At a stationary point of a loss averaged over examples with L2 penalty λ, λ WᵀW = E[g hᵀ], so FACT and NFM align.

    Args:
        weight: The weight W [o, i] of the site.
        positions: "each" pairs δ and h of the same position, which is the gradient of W; "sum" pairs their sums over s.
    """

    source = Source.LOSS
    needs = frozenset({Part.INPUTS})

    def __init__(self, weight: Float[Tensor, "o i"], *, positions: Positions = "each") -> None:
        self.weight = weight
        self.positions: Positions = positions
        self.total = weight.new_zeros(weight.shape)
        self.examples = 0

    def update(self, record: Record) -> None:
        """Add one batch."""
        assert record.gradient is not None
        assert record.inputs is not None
        self.examples += len(record.inputs)
        add_product(self.total, rows_of(record.gradient, self.positions), rows_of(record.inputs, self.positions))

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        self.total, self.examples = world.sum(self.total), world.count(self.examples)

    def value(self) -> Congruence:
        """Return FACT as [W; P]ᵀ C [W; P], where C exchanges W and P and multiplies by −½; dense where i is the smaller
        side.
        """
        if not self.examples:
            raise ValueError("a mean over no examples")
        rows, features = self.weight.shape
        mean = self.total / self.examples
        if features < 2 * rows:
            half = self.weight.T @ mean
            return Congruence(None, -0.5 * (half + half.T))
        exchange = torch.eye(2 * rows, dtype=self.weight.dtype, device=self.weight.device).roll(rows, dims=0)
        return Congruence(torch.cat([self.weight, mean]), -0.5 * exchange)
