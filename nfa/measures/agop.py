"""The average gradient outer product (AGOP) of a site's input."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.congruence import Congruence
from nfa.maths.example_matrices import OuterProducts
from nfa.maths.standard_errors import SampleMean
from nfa.measures.first_examples import MOST, MOST_OF_ALL_OUTPUTS, FirstExamples
from nfa.measures.sides import Positions, PulledBack, by_example, rows_of
from nfa.measures.slopes import SlopeSum
from nfa.observe.records import Part, Record, Source
from nfa.parallel import World

JacobianCentre = Literal["none", "jacobian"]


class Agop:
    """Accumulate AGOP = E[Σ_k J_kᵀ J_k] with J = ∂f/∂h [n, s, k, i], in memory that does not grow with n.

    Since J = K W, AGOP = Wᵀ S W with S = E[Σ_k K_kᵀ K_k]; either S [o, o] or AGOP [i, i] itself is accumulated,
    whichever costs less. The mean is over examples. Radhakrishnan et al., Science 2024, arXiv 2212.13881; centred:
    Beaglehole et al., arXiv 2402.05271.

    Args:
        weight: The weight W [o, i] of the site.
        centre: "none", or "jacobian" to use J − J̄ in place of J. J̄ is the mean over examples and, with
            positions="each", over positions, so Σ_k J̄_kᵀ J̄_k is subtracted once for each position of an example.
        positions: "each" adds up the outer products of all positions s; "sum" takes the outer product of the sum over
            s.
        keep: How many examples are stored for standard errors.
        slopes: Whether slopes σ′ of a function between the site and the readout may take the place of K, where there is
            one; J̄ is not known then.
    """

    source = Source.OUTPUT

    def __init__(
        self,
        weight: Float[Tensor, "o i"],
        *,
        centre: JacobianCentre = "none",
        positions: Positions = "each",
        keep: int = 0,
        slopes: bool = False,
    ) -> None:
        self.needs: frozenset[Part] = frozenset({Part.SLOPES}) if slopes else frozenset()
        self.slopes = SlopeSum(len(weight), weight) if slopes else None
        self.weight, self.sum = weight, PulledBack(weight)
        self.first = FirstExamples(-(-keep * MOST_OF_ALL_OUTPUTS // MOST))
        self.centre, self.positions = centre, positions
        self.shifts: dict[int, Tensor] = {}
        self.sums: dict[int, Tensor] = {}
        self.examples = 0
        self.rows = 0
        self.kept: tuple[Tensor, Tensor] | None = None

    def update(self, record: Record) -> None:
        """Add the output gradients of one batch in one direction, or its slopes."""
        assert record.gradient is not None
        if record.readout is None:
            self._add_gradients(record.gradient, record.direction)
        else:
            self._add_slopes(record.gradient[:, 0], record.readout)

    def _add_gradients(self, gradient: Tensor, direction: int) -> None:
        rows = rows_of(gradient, self.positions)
        if direction == 0:
            self.examples += len(gradient)
            self.rows += len(rows)
        rows = self.sum.moved(rows)
        self.first.add(by_example(rows, len(gradient)), direction)
        if self.centre == "jacobian":
            rows = self._shifted(rows, direction)
        self.sum.add(rows)

    def _add_slopes(self, slopes: Tensor, readout: Tensor) -> None:
        assert self.slopes is not None
        self.examples += len(slopes)
        self.rows += len(slopes)
        self.slopes.add(slopes, readout)
        few = slopes[: self.first.missing]
        for direction, row in enumerate(readout if len(few) else ()):
            self.first.add(self.sum.moved(few * row)[:, None], direction)

    def _shifted(self, rows: Tensor, direction: int) -> Tensor:
        # Shifted by the first batch's mean, so that `value` does not subtract large numbers from each other.
        if not len(rows):
            return rows
        if direction not in self.shifts:
            self.shifts[direction] = rows.mean(dim=0)
        rows = rows - self.shifts[direction]
        self.sums[direction] = self.sums.get(direction, 0) + rows.double().sum(dim=0)
        return rows

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        if self.centre == "jacobian":
            self._move_to_the_first_shift(world)
        self.sum.reduce(world)
        if self.slopes:
            self.slopes.reduce(world)
        self.kept = self.first.collected(world, self.examples)
        self.examples, self.rows = world.count(self.examples), world.count(self.rows)

    def _move_to_the_first_shift(self, world: World) -> None:
        """Move to the first process's shift c′ by Σ(x−c′)(x−c′)ᵀ = Σ(x−c)(x−c)ᵀ + d eᵀ + e dᵀ + m e eᵀ.

        Here d = Σ(x−c), e = c−c′, and m is the number of rows.
        """
        for direction, shift in self.shifts.items():
            first = world.broadcast_tensor(shift)
            e = (shift - first).double()
            d = self.sums[direction]
            cross = torch.outer(d, e)
            self.sum.total += (cross + cross.T + self.rows * torch.outer(e, e)).to(shift.dtype)
            self.shifts[direction] = first
            self.sums[direction] = world.sum(d + self.rows * e)

    def value(self) -> Congruence | SampleMean:
        """Return AGOP, with the matrices of the first examples if any are stored; ValueError before the first record.
        """
        core = self.sum.core(self.examples) + self._of_slopes()
        matrix = Congruence(self.sum.factor, self._centred(core) if self.centre == "jacobian" else core)
        if self.kept is None:
            return matrix
        rows, places = self.kept
        if self.centre == "jacobian":
            rows = rows - self._means()[:, None].to(rows)
        return SampleMean(matrix, OuterProducts(rows.flatten(1, 2), self.sum.factor, places))

    def _of_slopes(self) -> Tensor | float:
        """Return what slopes add to the core."""
        core = self.slopes.value() if self.slopes else None
        if core is None:
            return 0.0
        core = core / self.examples
        return self.weight.T @ (core @ self.weight) if self.sum.on_input_side else core

    def _means(self) -> Float[Tensor, "k side"]:
        """Return the mean row J̄ of each direction."""
        return torch.stack([self.shifts[k].double() + self.sums[k] / self.rows for k in sorted(self.shifts)])

    def _centred(self, core: Tensor) -> Tensor:
        positions = self.rows / self.examples
        mean = torch.stack(list(self.sums.values())) / self.rows
        core = core - positions * (mean.T @ mean).to(core.dtype)
        # A constant Jacobian has no centred part; the remainder is a rounding error.
        uncentred = positions * sum(float(shift.double().square().sum()) for shift in self.shifts.values())
        rounding = (64 * torch.finfo(core.dtype).eps) ** 2 * uncentred
        return torch.zeros_like(core) if float(core.trace()) <= rounding else core
