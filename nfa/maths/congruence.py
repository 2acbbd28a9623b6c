"""Symmetric matrices of the form Fᵀ C F, stored as their factors.

AGOP = Wᵀ S W and NFM = Wᵀ W live on a layer's input side [i, i], but S and W Wᵀ live on its output side [o, o]. Inner
products need no [i, i] product: ⟨FᵀCF, EᵀDE⟩ = ⟨C X, X D⟩ with X = F Eᵀ.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Congruence:
    """The symmetric matrix Fᵀ C F [i, i], stored as its factors.

    Args:
        factor: F [r, i]; None stands for the identity.
        core: The symmetric matrix C [r, r]; None stands for the identity.

    Raises:
        ValueError: Both are None, so that the size is not known.

    Example:
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
        """Return the same matrix in float64."""
        return Congruence(*(part if part is None else part.double() for part in (self.factor, self.core)))

    def dense(self) -> Float[Tensor, "i i"]:
        """Return the dense matrix [i, i]."""
        if self.factor is None:
            assert self.core is not None
            return self.core
        return self.factor.T @ (self.factor if self.core is None else self.core @ self.factor)

    def times(self, columns: Float[Tensor, "i m"]) -> Float[Tensor, "i m"]:
        """Return Fᵀ C F X for columns X [i, m], without multiplying the factors out."""
        if self.factor is None:
            return self.dense() @ columns
        through = self.factor @ columns
        return self.factor.T @ (through if self.core is None else self.core @ through)

    def sum(self) -> Tensor:
        """Return the sum of all entries, 1ᵀ Fᵀ C F 1."""
        if self.factor is None:
            return self.dense().sum()
        ones = self.factor.sum(dim=1)
        return ones @ (ones if self.core is None else self.core @ ones)

    @property
    def size(self) -> int:
        """The number i of rows of the dense matrix."""
        part = self.core if self.factor is None else self.factor
        assert part is not None
        return part.shape[1]

    def sqrt(self) -> "Congruence":
        """Return the positive semidefinite square root of a positive semidefinite matrix.

        With C = L Lᵀ and the thin SVD Lᵀ F = U Σ Vᵀ, FᵀCF = V Σ² Vᵀ, so the root is V Σ Vᵀ. It is computed in float64.
        The root of a matrix that is not finite is NaN.
        """
        half = self._half()
        if not half.isfinite().all():
            return Congruence(half.new_full((1, self.size), math.nan), None)
        _, singular, directions = torch.linalg.svd(half, full_matrices=False)
        return Congruence(factor=directions, core=torch.diag(singular))

    def _half(self) -> Tensor:
        """Return Lᵀ F in float64; Lᵀ is NaN where C is not finite."""
        factor = None if self.factor is None else self.factor.double()
        if self.core is None:
            assert factor is not None
            return factor
        core = self.core.double()
        half = torch.full_like(core, math.nan)
        if core.isfinite().all():
            values, vectors = torch.linalg.eigh(core)
            half = values.clamp(min=0).sqrt()[:, None] * vectors.T
        return half if factor is None else half @ factor


@dataclass(frozen=True)
class PairedMean(Congruence):
    """The matrix −½ (WᵀP + PᵀW) together with P.

    Args:
        factor: The factor of the congruence, or None.
        core: The core of the congruence, or None.
        pairs: P = E[δ hᵀ] [o, i].
    """

    pairs: Float[Tensor, "o i"]
