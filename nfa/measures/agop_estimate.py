"""AGOP estimated from a few random output directions instead of all outputs."""

from jaxtyping import Float
from torch import Tensor

from nfa.maths.replicates import Replicates
from nfa.measures.first_examples import MOST, FirstExamples
from nfa.measures.sides import Positions, PulledBack, by_example, rows_of
from nfa.observe.records import Part, Record, Source
from nfa.parallel import World


class AgopEstimate:
    """Accumulate R independent unbiased estimates A_r = E[J_vᵀ J_v] of AGOP, J_v = Σ_k v_rk J_k with random v ∈ {±1}^k.

    The expectation of J_vᵀ J_v over v is Σ_k J_kᵀ J_k. The norm of one estimate is biased, so `Replicates` computes it
    from products of different estimates. Rows of the first examples are stored, from which the standard error follows.

    Args:
        weight: The weight W [o, i] of the site.
        directions: The number R of directions.
        positions: "each" adds up the outer products of all positions s; "sum" takes the outer product of the sum over
            s.
    """

    source = Source.OUTPUT
    needs: frozenset[Part] = frozenset()

    def __init__(self, weight: Float[Tensor, "o i"], directions: int, *, positions: Positions = "each") -> None:
        self.sums = [PulledBack(weight) for _ in range(directions)]
        self.first = FirstExamples(MOST)
        self.positions = positions
        self.examples = 0
        self.kept: tuple[Tensor, Tensor] | None = None

    def update(self, record: Record) -> None:
        """Add the output gradients of one batch in one direction."""
        assert record.gradient is not None
        n = len(record.gradient)
        total = self.sums[record.direction]
        rows = total.moved(rows_of(record.gradient, self.positions))
        total.add(rows)
        self.first.add(by_example(rows, n), record.direction)
        if record.direction == 0:
            self.examples += n

    def reduce(self, world: World) -> None:
        """Sum over processes, and collect the stored rows of all of them."""
        for total in self.sums:
            total.reduce(world)
        self.kept = self.first.collected(world, self.examples)
        self.examples = world.count(self.examples)

    def value(self) -> Replicates:
        """Return the estimates; raises ValueError before the first record."""
        cores = [total.core(self.examples) for total in self.sums]
        kept = self.kept or self.first.collected(World(), self.examples)
        assert kept
        return Replicates(self.sums[0].factor, cores, kept[0], self.examples, kept[1])
