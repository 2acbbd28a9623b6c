"""Independent unbiased estimates of one matrix, and a cosine from them without the bias of a noisy norm."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfa.maths.congruence import Congruence
from nfa.maths.example_matrices import OuterProducts
from nfa.maths.similarity import Similarity


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error.

    Args:
        value: The estimate.
        se: Its standard error.
    """

    value: float
    se: float


@dataclass(frozen=True)
class Replicates:
    """Independent unbiased estimates A_r = Fᵀ C_r F of one matrix, each a mean over the same n examples.

    Args:
        factor: F [r, i]; None stands for the identity.
        cores: The matrices C_r [r, r], at least two.
        sample: Rows x [m, R, s, r] of m of the examples; Σ_s x xᵀ is what one example adds to n C_r.
        count: The number n of examples.
        numbers: The places of the m examples in the order of the analysis [m]; None stands for the first m.

    Raises:
        ValueError: There is only one estimate, whose norm would be biased.
    """

    factor: Float[Tensor, "r i"] | None
    cores: list[Float[Tensor, "r r"]]
    sample: Float[Tensor, "m R s r"]
    count: int
    numbers: Int[Tensor, " m"] | None = None

    def __post_init__(self) -> None:
        if len(self.cores) < 2:
            raise ValueError("one estimate has a biased norm; two or more are needed")

    @cached_property
    def parts(self) -> list[Congruence]:
        """The estimates A_r."""
        return [Congruence(self.factor, core) for core in self.cores]

    @cached_property
    def examples(self) -> OuterProducts:
        """The matrices of single examples."""
        numbers = torch.arange(len(self.sample)) if self.numbers is None else self.numbers
        return OuterProducts(self.sample, self.factor, numbers)

    @cached_property
    def mean(self) -> Congruence:
        """The mean Ā of the estimates."""
        total = torch.stack(self.cores).mean(dim=0) if len(self.cores) > 2 else (self.cores[0] + self.cores[1]) / 2
        return Congruence(self.factor, total)

    def squared_norm(self, similarity: Similarity) -> float:
        """Return an unbiased estimate of ‖A‖²_F: the mean of ⟨A_r, A_q⟩ over r ≠ q.

        It can be negative where the estimates are dominated by noise.
        """
        pairs = [similarity.inner(a, b) for index, a in enumerate(self.parts) for b in self.parts[:index]]
        return sum(pairs) / len(pairs)

    def cosine(self, other: Congruence, similarity: Similarity) -> Estimate | None:
        """Return the debiased cosine ⟨Ā, M⟩ / (‖M‖ √(mean ⟨A_r, A_q⟩)), which can exceed 1, with its standard error.

        The standard error is relative to the exact value on the same examples: with D the derivative of the cosine with
        respect to A, it is √(Σ_n Var_r⟨A_nr, D⟩ / R) / n, with the variance over directions estimated on the sampled
        examples. The result is None where the value or its error is undefined.
        """
        norms = self.squared_norm(similarity), similarity.inner(other, other)
        if not all(0 < norm < math.inf for norm in norms):  # NaN fails every comparison
            return None
        inner = sum(similarity.inner(part, other) for part in self.parts) / len(self.parts)
        value = inner / math.sqrt(norms[0]) / math.sqrt(norms[1])
        along = self.examples.along(other, similarity) / math.sqrt(norms[0]) / math.sqrt(norms[1])
        along = along - value * (similarity.once(self.examples.along, self.mean, similarity) / norms[0])
        spread = along.var(dim=1, correction=1).mean()
        error = math.sqrt(float(spread) / len(self.cores) / self.count)
        return Estimate(value, error) if math.isfinite(value) and math.isfinite(error) else None
