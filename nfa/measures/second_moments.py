"""Uncentred second moments of a site's input, output and loss gradient."""

import hashlib
from fractions import Fraction
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.congruence import Congruence
from nfa.maths.example_matrices import OuterProducts
from nfa.maths.standard_errors import SampleMean
from nfa.measures.first_examples import MOST, FirstExamples
from nfa.measures.outer_sums import OuterSum
from nfa.measures.sides import Positions, PulledBack, by_example, rows_of
from nfa.observe.records import Part, Record, Source
from nfa.parallel import World

ALL = Fraction(1)


class Moment:
    """Accumulate E[x xᵀ] of rows x; an example's positions are added up (each outer product, or that of their sum).

    Args:
        features: The number of entries of x.
        positions: "each" or "sum".
        like: A tensor whose type and device are used.
        keep: How many examples are stored for standard errors.
        share: The share of the examples that come, in a trial of a few of them.
    """

    def __init__(
        self, features: int, positions: Positions, like: Tensor, keep: int = 0, share: Fraction = ALL
    ) -> None:
        self.positions: Positions = positions
        self.first = FirstExamples(min(keep, MOST))
        self.kept: tuple[Tensor, Tensor] | None = None
        self.sum = OuterSum(features, like, share)
        self.examples = 0

    def add(self, rows: Float[Tensor, "n s f"]) -> None:
        """Add a batch of rows [n, s, f]."""
        self.examples += len(rows)
        flat = rows_of(rows, self.positions)
        self.first.add(by_example(flat, len(rows)))
        self.sum.add(flat)

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        self.kept = self.first.collected(world, self.examples)
        self.sum.reduce(world)
        self.examples = world.count(self.examples)

    def mean(self) -> Congruence | SampleMean:
        """Return the mean over examples; raises ValueError where there are none."""
        return with_examples(self.sum.mean(self.examples), self.kept, None)


def with_examples(
    matrix: Congruence, kept: tuple[Tensor, Tensor] | None, factor: Float[Tensor, "f i"] | None
) -> Congruence | SampleMean:
    """Return a mean of outer products together with those of the stored examples, if there are any.

    Args:
        matrix: The mean over all examples.
        kept: The rows of the stored examples [m, series, s, f], and the place of each in the order of the analysis.
        factor: F of the examples' matrices Fᵀ x xᵀ F; None stands for the identity.

    Returns:
        The mean, with the examples where there are some.
    """
    if kept is None:
        return matrix
    return SampleMean(matrix, OuterProducts(kept[0].flatten(1, 2), factor, kept[1]))


class InputMoment:
    """Accumulate H = E[h hᵀ] [i, i], where h is the site's input. Ziyin et al. 2024, arXiv 2410.03006.

    Where h depends on no trainable parameter, as in the first layer, H is the same at every checkpoint and need not be
    measured again.

    Args:
        weight: The weight W [o, i] of the site.
        positions: "each" adds up the outer products of all positions s; "sum" takes the outer product of the sum over
            s.
        known: What `remembered()` returned at another checkpoint; it is used if the first record is bitwise the same.
        keep: How many examples are stored for standard errors.
        share: The share of the examples that come, in a trial of a few of them.
    """

    source = Source.FORWARD

    def __init__(
        self,
        weight: Float[Tensor, "o i"],
        *,
        positions: Positions = "each",
        known: "KnownMoment | None" = None,
        keep: int = 0,
        share: Fraction = ALL,
    ) -> None:
        self.moment = Moment(weight.shape[1], positions, weight, keep, share)
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

    def value(self) -> Congruence | SampleMean:
        """Return H."""
        return self.known.matrix if self.known and self.is_known else self.moment.mean()

    def remembered(self) -> "KnownMoment | None":
        """Return what to pass as `known` at the next checkpoint; None where h depends on trainable parameters."""
        return KnownMoment(self.first, self.value()) if self.fixed else None


class KnownMoment(NamedTuple):
    """H, and a digest of the inputs it was measured on."""

    first: str
    matrix: Congruence | SampleMean


def _digest(inputs: Tensor) -> str:
    return hashlib.blake2b(inputs.detach().cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()


class OutputMoment:
    """Accumulate H′ = E[z zᵀ] [o, o], where z is the site's output before its activation. arXiv 2410.03006.

    Args:
        weight: The weight W [o, i] of the site.
        positions: "each" adds up the outer products of all positions s; "sum" takes the outer product of the sum over
            s.
        keep: How many examples are stored for standard errors.
        share: The share of the examples that come, in a trial of a few of them.
    """

    source = Source.FORWARD
    needs = frozenset({Part.OUTPUTS})

    def __init__(
        self, weight: Float[Tensor, "o i"], *, positions: Positions = "each", keep: int = 0, share: Fraction = ALL
    ) -> None:
        self.moment = Moment(weight.shape[0], positions, weight, keep, share)

    def update(self, record: Record) -> None:
        """Add one batch."""
        assert record.outputs is not None
        self.moment.add(record.outputs)

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        self.moment.reduce(world)

    def value(self) -> Congruence | SampleMean:
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
        keep: How many examples are stored for standard errors.
        share: The share of the examples that come, in a trial of a few of them.
    """

    source = Source.LOSS
    needs: frozenset[Part] = frozenset()

    def __init__(
        self,
        weight: Float[Tensor, "o i"],
        *,
        positions: Positions = "each",
        output_side: bool = False,
        keep: int = 0,
        share: Fraction = ALL,
    ) -> None:
        self.weight, self.positions = weight, positions
        self.sum: OuterSum | PulledBack = PulledBack(weight)
        if output_side:
            self.sum = OuterSum(len(weight), weight, share)
        self.first = FirstExamples(min(keep, MOST))
        self.kept: tuple[Tensor, Tensor] | None = None
        self.examples = 0

    def update(self, record: Record) -> None:
        """Add the loss gradients of one batch."""
        assert record.gradient is not None
        self.examples += len(record.gradient)
        rows = rows_of(record.gradient, self.positions)
        rows = self.sum.moved(rows) if isinstance(self.sum, PulledBack) else rows
        self.first.add(by_example(rows, len(record.gradient)))
        self.sum.add(rows)

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        self.sum.reduce(world)
        self.kept = self.first.collected(world, self.examples)
        self.examples = world.count(self.examples)

    def value(self) -> Congruence | SampleMean:
        """Return G."""
        if isinstance(self.sum, OuterSum):
            return with_examples(self._pulled_back(self.sum), self.kept, self.weight)
        return with_examples(self.sum.mean(self.examples), self.kept, self.sum.factor)

    def _pulled_back(self, deltas: OuterSum) -> Congruence:
        core = deltas.mean(self.examples).core
        if core is not None:
            return Congruence(self.weight, core)
        made = PulledBack(self.weight)
        made.add(made.moved(deltas.joined()))
        return made.mean(self.examples)

    def output_side(self) -> Congruence | SampleMean:
        """Return G′; raises ValueError where it was not accumulated."""
        if isinstance(self.sum, PulledBack):
            raise ValueError("G′ was not accumulated; ask for output_side")
        return with_examples(self.sum.mean(self.examples), self.kept, None)
