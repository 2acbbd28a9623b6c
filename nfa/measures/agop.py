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
        self.means: dict[int, Tensor] = {}
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
        add_gram(self.total, rows)
        if self.centre == "jacobian":
            self.means[record.direction] = self.means.get(record.direction, 0) + rows.double().sum(dim=0)

    def value(self) -> Congruence:
        """AGOP as a `Congruence`."""
        core = symmetric(self.total) / self.examples
        if self.centre == "jacobian":
            mean = torch.stack(list(self.means.values())) / self.rows
            core = core - (mean.T @ mean).to(core.dtype) * (self.rows / self.examples)
        return Congruence(None if self.on_input_side else self.weight, core)
