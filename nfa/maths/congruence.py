"""Symmetric matrices of the form Fᵀ C F, kept as their factors.

AGOP = Wᵀ S W and NFM = Wᵀ W live on a layer's input side (i×i), but S and W Wᵀ live on its output side (o×o).
Inner products need no i×i product: ⟨FᵀCF, EᵀDE⟩ = ⟨C X, X D⟩ with X = F Eᵀ.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Congruence:
    """Fᵀ C F with `factor` F [r i] and symmetric `core` C [r r]; None stands for the identity.

    >>> W = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    >>> Congruence(factor=W, core=None).dense()
    tensor([[9., 0.],
            [0., 1.]])
    """

    factor: Float[Tensor, "r i"] | None
    core: Float[Tensor, "r r"] | None

    def __post_init__(self) -> None:
        if self.factor is None and self.core is None:
            raise ValueError("a congruence needs a factor or a core")

    def double(self) -> "Congruence":
        """The same matrix in float64."""
        return Congruence(*(part if part is None else part.double() for part in (self.factor, self.core)))

    def dense(self) -> Float[Tensor, "i i"]:
        """The matrix itself."""
        if self.factor is None:
            assert self.core is not None
            return self.core
        return self.factor.T @ (self.factor if self.core is None else self.core @ self.factor)

    def times(self, columns: Float[Tensor, "i m"]) -> Float[Tensor, "i m"]:
        """Fᵀ C F X, without multiplying the factors out."""
        if self.factor is None:
            return self.dense() @ columns
        through = self.factor @ columns
        return self.factor.T @ (through if self.core is None else self.core @ through)

    def sum(self) -> Tensor:
        """Sum of all entries, 1ᵀFᵀCF1."""
        if self.factor is None:
            return self.dense().sum()
        ones = self.factor.sum(dim=1)
        return ones @ (ones if self.core is None else self.core @ ones)

    @property
    def size(self) -> int:
        """i, the side of the dense matrix."""
        part = self.core if self.factor is None else self.factor
        assert part is not None
        return part.shape[1]

    def sqrt(self) -> "Congruence":
        """The positive semidefinite square root, for a positive semidefinite matrix.

        With C = L Lᵀ and Lᵀ F = U Σ Vᵀ (thin SVD), FᵀCF = V Σ² Vᵀ, so the root is V Σ Vᵀ. Computed in float64.
        """
        if self.core is None:
            assert self.factor is not None
            half = self.factor.double()
        else:
            values, vectors = torch.linalg.eigh(self.core.double())
            half = values.clamp(min=0).sqrt()[:, None] * vectors.T
            half = half if self.factor is None else half @ self.factor.double()
        _, singular, directions = torch.linalg.svd(half, full_matrices=False)
        return Congruence(factor=directions, core=torch.diag(singular))
