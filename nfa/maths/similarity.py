"""Cosine similarity of symmetric matrices."""

import math
from typing import Literal

import torch
from torch import Tensor

from nfa.maths.congruence import Congruence

Centre = Literal["none", "entry"]


class Similarity:
    """Inner products and cosines of `Congruence`s; products of the same two factors are formed once.

    Use one instance for the matrices of one site, so that W Wᵀ serves every relation.
    """

    def __init__(self, centre: Centre = "none") -> None:
        self.centre = centre
        self._crossed: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}
        self._inner: dict[tuple[int, int], tuple[Congruence, Congruence, float]] = {}

    def inner(self, a: Congruence, b: Congruence) -> float:
        """⟨A, B⟩ = tr(AᵀB); with centre="entry", ⟨A − Ā, B − B̄⟩ with Ā the mean entry of A.

        The entry-centred product is a small difference of large numbers, so it is taken in float64.
        """
        key = (id(a), id(b))
        if key not in self._inner:
            # The matrices are kept beside the value so that their ids stay theirs.
            self._inner[key] = (a, b, self._uncentred(a, b) if self.centre == "none" else _entry_centred(a, b))
        return self._inner[key][2]

    def cosine(self, a: Congruence, b: Congruence) -> float | None:
        """⟨A, B⟩ / (‖A‖_F ‖B‖_F); None where it is undefined because a norm is zero.

        >>> A, B = (Congruence(None, torch.diag(torch.tensor(d))) for d in ([1.0, 0.0], [1.0, 1.0]))
        >>> round(Similarity().cosine(A, B), 6)
        0.707107
        """
        norms = self.inner(a, a), self.inner(b, b)
        if min(norms) <= 0:
            return None
        return self.inner(a, b) / math.sqrt(norms[0]) / math.sqrt(norms[1])

    def _uncentred(self, a: Congruence, b: Congruence) -> float:
        if a.factor is None and b.factor is None:
            return _frobenius(a.dense(), b.dense())
        cross = self._cross(a, b)
        left = cross if a.core is None else a.core @ cross
        if a is b:
            return _frobenius(left, left.T)  # cross and core are symmetric, so X C = (C X)ᵀ
        right = cross if b.core is None else cross @ b.core
        return _frobenius(left, right)

    def _cross(self, a: Congruence, b: Congruence) -> Tensor:
        """X = F Eᵀ of two factors, one of which may be the identity."""
        if a.factor is None or b.factor is None:
            factor = b.factor if a.factor is None else a.factor
            assert factor is not None
            return factor.T if a.factor is None else factor
        key = (id(a.factor), id(b.factor))
        if key not in self._crossed:
            self._crossed[key] = (a.factor, b.factor, a.factor @ b.factor.T)
        return self._crossed[key][2]


def _frobenius(a: Tensor, b: Tensor) -> float:
    # Entries are multiplied and added in float64: float32 sums of 10⁶ terms lose digits, and their squares underflow.
    return float(
        sum((x.double() * y.double()).sum() for x, y in zip(torch.split(a, 256), torch.split(b, 256), strict=True))
    )


def _entry_centred(a: Congruence, b: Congruence) -> float:
    a, b = a.double(), b.double()
    product = Similarity().inner(a, b)
    centred = product - float(a.sum() * b.sum()) / a.size**2
    # A constant matrix has no centred part; what rounding leaves of it is not one.
    return 0.0 if abs(centred) <= 64 * torch.finfo(torch.float64).eps * abs(product) else centred
