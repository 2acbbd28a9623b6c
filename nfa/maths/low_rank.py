"""Matrices of low rank: their SVD from factors, truncation, extension, balanced factors, norms; no product is formed.

An update ΔW [o i] of a linear layer is either dense or a product of `Factors`.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nfa import seeding

OVERSAMPLING = 16
ITERATIONS = 4
ROWS = 512  # of a dense matrix that are compared with a product at a time


class FactorPair(NamedTuple):
    """The matrix B A."""

    b: Float[Tensor, "o k"]
    a: Float[Tensor, "k i"]

    @property
    def shape(self) -> tuple[int, int]:
        """(o, i)."""
        return len(self.b), self.a.shape[1]


class LowRank(NamedTuple):
    """The matrix U diag(s) Vᵀ: orthonormal columns of U and rows of Vᵀ, s ≥ 0 in falling order."""

    u: Float[Tensor, "o r"]
    s: Float[Tensor, " r"]
    vh: Float[Tensor, "r i"]

    @property
    def factors(self) -> FactorPair:
        """(U diag(s)) Vᵀ."""
        return FactorPair(self.u * self.s, self.vh)

    def truncated(self, rank: int) -> "LowRank":
        """The first `rank` triplets: the nearest matrix of that rank in Frobenius and in spectral norm.

        Eckart, Young 1936; Mirsky 1960.
        """
        return LowRank(self.u[:, :rank], self.s[:rank], self.vh[:rank])

    @property
    def rank(self) -> int:
        """Number of singular values above max(o, i)·ε·s_1, ε the rounding of their type."""
        size = max(len(self.u), self.vh.shape[1])
        if not len(self.s) or not self.s[0]:
            return 0
        return int((self.s > size * torch.finfo(self.s.dtype).eps * self.s[0]).sum())


def svd_of_product(factors: FactorPair, scale: float = 1.0) -> LowRank:
    """The min(o, i, k) triplets of scale · B A in O((o + i) k²): B = Q_b R_b, Aᵀ = Q_a R_a, and the SVD of R_b R_aᵀ.

    Exact up to rounding, for k > min(o, i) and for factors of lower rank too. Neither B A nor anything of its size is
    formed.

    >>> svd_of_product(FactorPair(torch.tensor([[3.0], [4.0]]), torch.tensor([[0.0, -2.0]]))).s
    tensor([10.])
    """
    (left, b), (right, a) = (torch.linalg.qr(part) for part in (factors.b, factors.a.T))
    u, s, vh = torch.linalg.svd(scale * (b @ a.T), full_matrices=False)
    return LowRank(left @ u, s, vh @ right.T)


def svd_of_matrix(
    matrix: Float[Tensor, "o i"],
    rank: int,
    *,
    seed: int = 0,
    oversampling: int = OVERSAMPLING,
    iterations: int = ITERATIONS,
) -> LowRank:
    """The first `rank` triplets of a dense matrix, by a randomised SVD with q = rank + oversampling directions.

    Halko, Martinsson, Tropp 2011, algorithms 4.4 and 5.1. U, s and Vᵀ are those of the projection Q Qᵀ W, so that every
    s_j is at most the true one. Where q ≥ min(o, i) the SVD is exact. The draw depends on `seed` alone, and torch's own
    generators are left as they were.
    """
    q = rank + oversampling
    if q >= min(matrix.shape):
        return LowRank(*torch.linalg.svd(matrix, full_matrices=False)).truncated(rank)
    with seeding.untouched():
        torch.manual_seed(seed)
        u, s, v = torch.svd_lowrank(matrix, q=q, niter=iterations)
    return LowRank(u, s, v.T).truncated(rank)


def balanced(matrix: LowRank, scaling: float) -> FactorPair:
    """B = U √(s/scaling) and A = √(s/scaling) Vᵀ, so that scaling · B A is the matrix and BᵀB = A Aᵀ.

    `scaling` > 0 is alpha/rank of a LoRA layer, which multiplies B A by it.
    """
    root = (matrix.s / scaling).sqrt()
    return FactorPair(matrix.u * root, root[:, None] * matrix.vh)


def extended(matrix: LowRank, rank: int, decay: float, generator: torch.Generator) -> LowRank:
    """The matrix and random triplets up to `rank`: s_{r+j} = s_r e^(−decay·j), j = 1, 2, …

    The new directions are orthonormal, to each other and to those that are there, and otherwise uniform. There can be
    no more than min(o, i) triplets: the result then has fewer than `rank`.
    """
    o, i, kept = len(matrix.u), matrix.vh.shape[1], len(matrix.s)
    added = max(0, min(rank, o, i) - kept)
    tail = matrix.s[-1:] * torch.exp(-decay * torch.arange(1, added + 1, dtype=matrix.s.dtype))
    u, v = (_completed(part, added, generator) for part in (matrix.u, matrix.vh.T))
    return LowRank(u, torch.cat([matrix.s, tail]), v.T)


def _completed(columns: Float[Tensor, "m r"], added: int, generator: torch.Generator) -> Float[Tensor, "m t"]:
    """Orthonormal columns and `added` more: the QR of both makes the drawn ones orthogonal to those before."""
    drawn = torch.randn(len(columns), added, generator=generator, dtype=columns.dtype)
    basis = torch.linalg.qr(torch.cat([columns, drawn], dim=1)).Q
    return torch.cat([columns, basis[:, columns.shape[1] :]], dim=1)


def noise_sigma(spectral_norm: float, shape: tuple[int, int]) -> float:
    """σ = ‖N‖₂ / (√o + √i): entries of this standard deviation make a matrix [o i] of about that spectral norm.

    The largest singular value of Gaussian noise is at most σ(√o + √i) in the mean and close to it for large matrices;
    σ = ‖N‖₂ per entry would make it √o + √i times too large. Davidson, Szarek 2001, theorem II.13.

    >>> noise_sigma(1.0, (576, 1536))
    0.015824829046386303
    """
    return spectral_norm / (math.sqrt(shape[0]) + math.sqrt(shape[1]))


def noise(shape: tuple[int, int], sigma: float, seed: int, name: str) -> Float[Tensor, "o i"]:
    """Gaussian entries of standard deviation `sigma`, float32, the same ones for the same seed and name."""
    return torch.randn(shape, generator=seeding.generator(seed, f"noise/{name}")) * sigma


def norm(matrix: Float[Tensor, "o i"] | FactorPair) -> float:
    """‖ΔW‖_F in float64; of a product ‖R_b R_aᵀ‖_F."""
    if isinstance(matrix, FactorPair):
        b, a = (torch.linalg.qr(part.double(), mode="r").R for part in (matrix.b, matrix.a.T))
        return float((b @ a.T).norm())
    return math.hypot(*(float(torch.linalg.vector_norm(rows, dtype=torch.float64)) for rows in matrix.split(ROWS)))


def distance(matrix: Float[Tensor, "o i"] | FactorPair, other: FactorPair) -> float:
    """‖ΔW − B A‖_F; of a dense ΔW some rows at a time, in its own type."""
    if isinstance(matrix, FactorPair):
        b = torch.cat([matrix.b.double(), -other.b.double()], dim=1)
        return norm(FactorPair(b, torch.cat([matrix.a.double(), other.a.double()])))
    b, a = (part.to(matrix.dtype) for part in other)
    parts = zip(matrix.split(ROWS), b.split(ROWS), strict=True)
    return math.hypot(*(norm(torch.addmm(rows, left, a, alpha=-1)) for rows, left in parts))


def relative_error(matrix: Float[Tensor, "o i"] | FactorPair, other: FactorPair) -> float | None:
    """‖ΔW − B A‖_F / ‖ΔW‖_F; None for a zero ΔW."""
    size = norm(matrix)
    return distance(matrix, other) / size if size else None


def energy_ratio(s: Float[Tensor, " r"], size: float) -> float | None:
    """‖ΔW_r‖_F² / ‖ΔW‖_F² = Σ s_j² / size², at most 1; None for a zero ΔW."""
    return min(1.0, (float(s.double().norm()) / size) ** 2) if size else None


def stable_rank(largest: float, size: float) -> float | None:
    """‖ΔW‖_F² / ‖ΔW‖₂², between 1 and the rank; None for a zero ΔW."""
    return max(1.0, (size / largest) ** 2) if largest else None


def flops_of_product(shape: tuple[int, int], k: int) -> int:
    """Floating-point operations of `svd_of_product`, m = min(o, k) and n = min(i, k) columns of the two bases.

    4 o k m + 4 i k n (two Householder QR with their bases; for k ≤ o the usual 4 o k² with the lower-order term left
    out) + 2 m n k (core) + SVD(m, n) + 2 o m t + 2 i n t (bases times singular vectors), t = min(m, n), with
    SVD(m, n) = 6 max·min² + 20 min³ (Golub, Van Loan 2013, figure 8.6.1, R-SVD).
    """
    o, i = shape
    m, n = min(o, k), min(i, k)
    return 4 * k * (o * m + i * n) + 2 * m * n * k + _svd(m, n) + 2 * (o * m + i * n) * min(m, n)


def flops_of_matrix(shape: tuple[int, int], rank: int, oversampling: int, iterations: int) -> int:
    """Floating-point operations of `svd_of_matrix`, q = rank + oversampling.

    2 (2·iterations + 2) o i q (products with W and Wᵀ) + 4 q² ((iterations + 1) o + iterations·i) (bases) + SVD(q, i)
    + 2 o q² (basis times singular vectors), with o the longer side where that is i; SVD(o, i) where q ≥ min(o, i).
    """
    o, i = max(shape), min(shape)
    q = rank + oversampling
    if q >= i:
        return _svd(o, i)
    bases = 4 * q * q * ((iterations + 1) * o + iterations * i)
    return 4 * (iterations + 1) * o * i * q + bases + _svd(q, i) + 2 * o * q * q


def _svd(m: int, n: int) -> int:
    return 6 * max(m, n) * min(m, n) ** 2 + 20 * min(m, n) ** 3
