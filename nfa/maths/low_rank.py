"""Low-rank matrices: SVD of a product, truncation, extension, balanced factors and norms, without forming any product.

An update ΔW [o, i] of a linear layer is either a dense matrix or a product of factors (`FactorPair`).
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nfa import seeding

OVERSAMPLING = 16
ITERATIONS = 4
ROWS = 512  # rows of a dense matrix that are compared with a product at a time


class FactorPair(NamedTuple):
    """The matrix B A, stored as its factors.

    Args:
        b: B [o, k].
        a: A [k, i].
    """

    b: Float[Tensor, "o k"]
    a: Float[Tensor, "k i"]

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (o, i) of the product."""
        return len(self.b), self.a.shape[1]


class LowRank(NamedTuple):
    """The matrix U diag(s) Vᵀ.

    Args:
        u: U [o, r], with orthonormal columns.
        s: The singular values s [r], at least 0 and in descending order.
        vh: Vᵀ [r, i], with orthonormal rows.
    """

    u: Float[Tensor, "o r"]
    s: Float[Tensor, " r"]
    vh: Float[Tensor, "r i"]

    @property
    def factors(self) -> FactorPair:
        """The pair (U diag(s), Vᵀ)."""
        return FactorPair(self.u * self.s, self.vh)

    def truncated(self, rank: int) -> "LowRank":
        """Keep the first `rank` triplets: the nearest matrix of that rank in Frobenius and in spectral norm.

        Eckart and Young 1936; Mirsky 1960.
        """
        return LowRank(self.u[:, :rank], self.s[:rank], self.vh[:rank])

    @property
    def rank(self) -> int:
        """The number of singular values above max(o, i)·ε·s_1, where ε is the machine epsilon of their type."""
        size = max(len(self.u), self.vh.shape[1])
        if not len(self.s) or not self.s[0]:
            return 0
        return int((self.s > size * torch.finfo(self.s.dtype).eps * self.s[0]).sum())


def svd_of_product(factors: FactorPair, scale: float = 1.0) -> LowRank:
    """Return the singular value decomposition of a scaled product, without forming the product.

    With B = Q_b R_b and Aᵀ = Q_a R_a it follows from the SVD of R_b R_aᵀ, in O((o + i) k²) operations. It is exact up
    to rounding, also for k > min(o, i) and for factors that are rank deficient.

    Args:
        factors: The factors B [o, k] and A [k, i].
        scale: A factor by which the product is multiplied.

    Returns:
        The min(o, i, k) singular triplets of scale · B A.

    Example:
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
    """Return the first singular triplets of a dense matrix, by a randomised SVD with q = rank + oversampling
    directions.

    Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1. U, s and Vᵀ are those of the projection Q Qᵀ W, so every
    s_j is at most the true one. Where q ≥ min(o, i) the SVD is exact. The result depends on `seed` alone, and the state
    of torch's generators is restored.

    Args:
        matrix: The matrix W [o, i].
        rank: The number of triplets.
        seed: The seed of the random directions.
        oversampling: The number of directions beyond `rank`.
        iterations: The number of power iterations.

    Returns:
        The first `rank` triplets.
    """
    q = rank + oversampling
    if q >= min(matrix.shape):
        return LowRank(*torch.linalg.svd(matrix, full_matrices=False)).truncated(rank)
    with seeding.untouched():
        torch.manual_seed(seed)
        u, s, v = torch.svd_lowrank(matrix, q=q, niter=iterations)
    return LowRank(u, s, v.T).truncated(rank)


def balanced(matrix: LowRank, scaling: float) -> FactorPair:
    """Split a matrix into balanced LoRA factors, B = U √(s/scaling) and A = √(s/scaling) Vᵀ.

    Then scaling · B A is the matrix, and BᵀB = A Aᵀ.

    Args:
        matrix: The matrix U diag(s) Vᵀ.
        scaling: The factor alpha/rank > 0 by which a LoRA layer multiplies B A.

    Returns:
        The factors B [o, r] and A [r, i].
    """
    root = (matrix.s / scaling).sqrt()
    return FactorPair(matrix.u * root, root[:, None] * matrix.vh)


def extended(matrix: LowRank, rank: int, decay: float, generator: torch.Generator) -> LowRank:
    """Extend a matrix by random triplets up to a rank, with singular values s_{r+j} = s_r e^(−decay·j), j = 1, 2, …

    The new directions are orthonormal to each other and to the existing ones, and otherwise uniformly distributed.

    Args:
        matrix: The matrix to extend, with r triplets.
        rank: The rank of the result; no more than min(o, i) triplets exist.
        decay: How fast the new singular values fall.
        generator: The source of random numbers.

    Returns:
        The extended matrix, with at most `rank` triplets.
    """
    o, i, kept = len(matrix.u), matrix.vh.shape[1], len(matrix.s)
    added = max(0, min(rank, o, i) - kept)
    tail = matrix.s[-1:] * torch.exp(-decay * torch.arange(1, added + 1, dtype=matrix.s.dtype))
    u, v = (_completed(part, added, generator) for part in (matrix.u, matrix.vh.T))
    return LowRank(u, torch.cat([matrix.s, tail]), v.T)


def _completed(columns: Float[Tensor, "m r"], added: int, generator: torch.Generator) -> Float[Tensor, "m t"]:
    """Complete orthonormal columns by `added` more; a QR of both makes the drawn columns orthogonal to the given ones.
    """
    drawn = torch.randn(len(columns), added, generator=generator, dtype=columns.dtype)
    basis = torch.linalg.qr(torch.cat([columns, drawn], dim=1)).Q
    return torch.cat([columns, basis[:, columns.shape[1] :]], dim=1)


def noise_sigma(spectral_norm: float, shape: tuple[int, int]) -> float:
    """Return the standard deviation of Gaussian entries that gives a matrix about the given spectral norm.

    σ = ‖N‖₂ / (√o + √i). The expected largest singular value of Gaussian noise is at most σ(√o + √i), and close to it
    for large matrices. Davidson and Szarek 2001, theorem II.13.

    Args:
        spectral_norm: The spectral norm ‖N‖₂ of the noise matrix.
        shape: The shape (o, i) of the noise matrix.

    Returns:
        The standard deviation σ.

    Example:
        >>> noise_sigma(1.0, (576, 1536))
        0.015824829046386303
    """
    return spectral_norm / (math.sqrt(shape[0]) + math.sqrt(shape[1]))


def noise(shape: tuple[int, int], sigma: float, seed: int, name: str) -> Float[Tensor, "o i"]:
    """Return a matrix of Gaussian noise in float32, the same for the same seed and name.

    Args:
        shape: The shape (o, i).
        sigma: The standard deviation of the entries.
        seed: The seed.
        name: The name of the weight, so that every weight has noise of its own.

    Returns:
        The noise [o, i].
    """
    return torch.randn(shape, generator=seeding.generator(seed, f"noise/{name}")) * sigma


def norm(matrix: Float[Tensor, "o i"] | FactorPair) -> float:
    """Return the Frobenius norm ‖ΔW‖_F in float64; for a product it is ‖R_b R_aᵀ‖_F.

    Args:
        matrix: A dense matrix [o, i] or its factors.

    Returns:
        The norm.
    """
    if isinstance(matrix, FactorPair):
        b, a = (torch.linalg.qr(part.double(), mode="r").R for part in (matrix.b, matrix.a.T))
        return float((b @ a.T).norm())
    return math.hypot(*(float(torch.linalg.vector_norm(rows, dtype=torch.float64)) for rows in matrix.split(ROWS)))


def distance(matrix: Float[Tensor, "o i"] | FactorPair, other: FactorPair) -> float:
    """Return the Frobenius norm of a difference, ‖ΔW − B A‖_F.

    For a dense ΔW it is computed a few rows at a time, in the type of ΔW.

    Args:
        matrix: ΔW, a dense matrix [o, i] or its factors.
        other: The factors B and A.

    Returns:
        The norm of the difference.
    """
    if isinstance(matrix, FactorPair):
        b = torch.cat([matrix.b.double(), -other.b.double()], dim=1)
        return norm(FactorPair(b, torch.cat([matrix.a.double(), other.a.double()])))
    b, a = (part.to(matrix.dtype) for part in other)
    parts = zip(matrix.split(ROWS), b.split(ROWS), strict=True)
    return math.hypot(*(norm(torch.addmm(rows, left, a, alpha=-1)) for rows, left in parts))


def relative_error(matrix: Float[Tensor, "o i"] | FactorPair, other: FactorPair) -> float | None:
    """Return the relative error of an approximation, ‖ΔW − B A‖_F / ‖ΔW‖_F.

    Args:
        matrix: ΔW, a dense matrix [o, i] or its factors.
        other: The factors B and A of the approximation.

    Returns:
        The relative error; None for ΔW = 0.
    """
    size = norm(matrix)
    return distance(matrix, other) / size if size else None


def energy_ratio(s: Float[Tensor, " r"], size: float) -> float | None:
    """Return the share of the squared Frobenius norm that the leading triplets hold, Σ s_j² / ‖ΔW‖_F².

    Args:
        s: The leading singular values [r].
        size: ‖ΔW‖_F of the whole matrix.

    Returns:
        The share, at most 1; None for ΔW = 0.
    """
    return min(1.0, (float(s.double().norm()) / size) ** 2) if size else None


def stable_rank(largest: float, size: float) -> float | None:
    """Return the stable rank ‖ΔW‖_F² / ‖ΔW‖₂² from the two norms.

    Args:
        largest: The spectral norm ‖ΔW‖₂.
        size: The Frobenius norm ‖ΔW‖_F.

    Returns:
        The stable rank, between 1 and the rank; None for ΔW = 0.
    """
    return max(1.0, (size / largest) ** 2) if largest else None
