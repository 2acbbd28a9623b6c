"""AGOP estimated from a few random output directions instead of all outputs."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nfa.maths.replicates import Replicates
from nfa.measures.sides import Positions, PulledBack, rows_of
from nfa.observe.records import Part, Record, Source
from nfa.parallel import World

SAMPLE_EXAMPLES = 256  # examples whose rows are stored for the standard error
SAMPLE_BYTES = 2**23  # bytes per site, whatever the number of positions; but at least 32 examples


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
        self.sample: list[list[Tensor]] = [[] for _ in range(directions)]
        self.positions = positions
        self.examples = 0

    def update(self, record: Record) -> None:
        """Add the output gradients of one batch in one direction."""
        assert record.gradient is not None
        n = len(record.gradient)
        total = self.sums[record.direction]
        rows = total.moved(rows_of(record.gradient, self.positions))
        total.add(rows)
        by_example = rows.view(n, len(rows) // n, rows.shape[-1])
        kept = self.sample[record.direction]
        missing = self._wanted(by_example[0]) - sum(len(part) for part in kept)
        if missing > 0:
            kept.append(by_example[:missing].clone())
        if record.direction == 0:
            self.examples += n

    @staticmethod
    def _wanted(example: Tensor) -> int:
        affordable = SAMPLE_BYTES // (max(1, example.numel()) * example.element_size())
        return min(SAMPLE_EXAMPLES, max(32, affordable))

    def reduce(self, world: World) -> None:
        """Sum over processes, and collect the stored rows of all of them."""
        for total in self.sums:
            total.reduce(world)
        self.examples = world.count(self.examples)
        everyone = world.gather([_joined(kept).cpu() for kept in self.sample])
        device = self.sums[0].total.device
        self.sample = [[part[direction].to(device) for part in everyone] for direction in range(len(self.sums))]

    def value(self) -> Replicates:
        """Return the estimates; raises ValueError before the first record."""
        cores = [total.core(self.examples) for total in self.sums]
        sample = torch.stack([_joined(kept) for kept in self.sample], dim=1)
        return Replicates(self.sums[0].factor, cores, sample, self.examples)


def _joined(parts: list[Tensor]) -> Float[Tensor, "m s r"]:
    """Concatenate the rows of all examples; shorter ones are padded by zeros, which add nothing."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in parts])
