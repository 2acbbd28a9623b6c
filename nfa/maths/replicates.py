"""Independent unbiased estimates of one matrix, and a cosine from them without the bias of a noisy norm."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.congruence import Congruence
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
        sample: Rows x [m, R, s, r] of the first m examples; Σ_s x xᵀ is what one example adds to n C_r.
        examples: The number n of examples.

    Raises:
        ValueError: There is only one estimate, whose norm would be biased.
    """

    factor: Float[Tensor, "r i"] | None
    cores: list[Float[Tensor, "r r"]]
    sample: Float[Tensor, "m R s r"]
    examples: int

    def __post_init__(self) -> None:
        if len(self.cores) < 2:
            raise ValueError("one estimate has a biased norm; two or more are needed")

    @cached_property
    def parts(self) -> list[Congruence]:
        """The estimates A_r."""
        return [Congruence(self.factor, core) for core in self.cores]

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
        along = self._along(other, similarity) / math.sqrt(norms[0]) / math.sqrt(norms[1])
        along = along - value * (similarity.once(self._along, self.mean, similarity) / norms[0])
        spread = along.var(dim=1, correction=1).mean()
        error = math.sqrt(float(spread) / len(self.cores) / self.examples)
        return Estimate(value, error) if math.isfinite(value) and math.isfinite(error) else None

    def _along(self, matrix: Congruence, similarity: Similarity) -> Float[Tensor, "m R"]:
        """Return ⟨A_nr, B⟩ of each sampled example [m, R]: for B = EᵀDE it is Σ_s yᵀDy with y = E Fᵀx."""
        cross = similarity.cross(self.factor, matrix.factor)
        through = self.sample if cross is None else similarity.once(torch.matmul, self.sample, cross)
        forms = through if matrix.core is None else through @ matrix.core
        values = (forms.double() * through.double()).sum(dim=(2, 3))
        if similarity.centre == "entry":
            ones = self.sample.double().sum(dim=3) if self.factor is None else self._sums()
            values = values - ones.square().sum(dim=2) * matrix.double().sum() / matrix.size**2
        return values

    def _sums(self) -> Float[Tensor, "m R s"]:
        """Return 1ᵀFᵀx."""
        assert self.factor is not None
        return self.sample.double() @ self.factor.double().sum(dim=1)
