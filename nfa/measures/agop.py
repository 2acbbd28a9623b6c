"""The average gradient outer product of a site's input."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.accumulate import add_gram, symmetric
from nfa.maths.congruence import Congruence
from nfa.observe.records import Record, Source

Positions = Literal["each", "sum"]
JacobianCentre = Literal["none", "jacobian"]


class Agop:
    """AGOP = E[Σ_k J_kᵀ J_k] with J = ∂f/∂h [n s k i], streamed over batches in memory that does not grow with n.

    J = K W, so AGOP = Wᵀ S W with S = E[Σ_k K_kᵀ K_k]; either S [o o] or AGOP [i i] itself is accumulated, whichever
    costs less. The mean is over examples; positions s are added up (`positions="each"`: the outer product of each;
    "sum": of the sum over s). `centre="jacobian"` subtracts Σ_k J̄_kᵀ J̄_k, J̄ the mean over examples (and positions,
    with "each"). Radhakrishnan et al., Science 2024, arXiv 2212.13881; centred: Beaglehole et al., arXiv 2402.05271.
    """

    source = Source.OUTPUT

    def __init__(
        self,
        weight: Float[Tensor, "o i"],
        *,
        centre: JacobianCentre = "none",
        positions: Positions = "each",
    ) -> None:
        self.weight, self.centre, self.positions = weight, centre, positions
        o, i = weight.shape
        self.on_input_side = i * (o + i) < o * o
        self.total = weight.new_zeros((i, i) if self.on_input_side else (o, o))
        self.shifts: dict[int, Tensor] = {}
        self.sums: dict[int, Tensor] = {}
        self.examples = 0
        self.rows = 0

    def update(self, record: Record) -> None:
        assert record.gradient is not None
        rows = record.gradient.sum(dim=1) if self.positions == "sum" else record.gradient.flatten(0, 1)
        if record.direction == 0:
            self.examples += len(record.gradient)
            self.rows += len(rows)
        if self.on_input_side:
            rows = rows @ self.weight
        if self.centre == "jacobian":
            # Moved by the first batch's mean, so that `value` does not subtract large numbers from each other.
            if record.direction not in self.shifts:
                self.shifts[record.direction] = rows.mean(dim=0)
            rows = rows - self.shifts[record.direction]
            self.sums[record.direction] = self.sums.get(record.direction, 0) + rows.double().sum(dim=0)
        add_gram(self.total, rows)

    def value(self) -> Congruence:
        """AGOP as a `Congruence`; ValueError before the first record."""
        if not self.examples:
            raise ValueError("AGOP of no examples")
        core = symmetric(self.total) / self.examples
        if self.centre == "jacobian":
            core = self._centred(core)
        return Congruence(None if self.on_input_side else self.weight, core)

    def _centred(self, core: Tensor) -> Tensor:
        positions = self.rows / self.examples
        mean = torch.stack(list(self.sums.values())) / self.rows
        core = core - positions * (mean.T @ mean).to(core.dtype)
        # A constant Jacobian has no centred part; what rounding leaves of it is not one.
        uncentred = positions * sum(float(shift.double().square().sum()) for shift in self.shifts.values())
        rounding = (64 * torch.finfo(core.dtype).eps) ** 2 * uncentred
        return torch.zeros_like(core) if float(core.trace()) <= rounding else core
