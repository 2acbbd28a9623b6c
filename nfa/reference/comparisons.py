"""How well two matrices align, and how many directions matter in one."""

import itertools
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Centre = Literal["none", "entry"]


def cosine(A: Float[Tensor, "i i"], B: Float[Tensor, "i i"], *, centre: Centre = "none") -> float:
    """Return ⟨A, B⟩ / (‖A‖_F ‖B‖_F).

    Args:
        A: A matrix [i, i].
        B: The matrix to compare with [i, i].
        centre: "entry" subtracts each matrix's mean entry first, which gives Pearson's r of the entries.

    Returns:
        The cosine.

    Raises:
        ValueError: A matrix is zero, or constant with centre="entry".

    Example:
        >>> cosine(torch.eye(2), torch.ones(2, 2)), cosine(torch.eye(2), torch.eye(2), centre="entry")
        (0.7071067811865475, 1.0)
    """
    a, b = A.double().flatten(), B.double().flatten()
    if centre == "entry":
        a, b = a - a.mean(), b - b.mean()
    norms = torch.linalg.vector_norm(a), torch.linalg.vector_norm(b)
    if min(norms) == 0:
        raise ValueError("the cosine with a zero matrix is undefined")
    return float((a / norms[0]) @ (b / norms[1]))


def debiased_cosine(directional: Float[Tensor, "r i i"], M: Float[Tensor, "i i"]) -> float:
    """Return ⟨Ā, M⟩ / (‖M‖ √ρ), with Ā the mean of the estimates A_r and ρ the mean of ⟨A_r, A_q⟩ over r ≠ q.

    E ρ = ‖AGOP‖², while E ‖Ā‖² is larger; the value may exceed 1.

    Args:
        directional: Independent estimates A_r of AGOP [r, i, i].
        M: The matrix to compare with [i, i].

    Returns:
        The debiased cosine.

    Raises:
        ValueError: There is one estimate, ρ ≤ 0, or M = 0.

    Example:
        >>> debiased_cosine(torch.stack([torch.eye(2)] * 3), torch.ones(2, 2))
        0.7071067811865475
    """
    A, M = directional.double(), M.double()
    pairs = [(A[r] * A[q]).sum() for r, q in itertools.permutations(range(len(A)), 2)]
    if not pairs or sum(pairs) <= 0 or not M.any():
        raise ValueError("the debiased cosine is undefined: it needs two estimates, ρ > 0 and a nonzero matrix")
    return float((A.mean(dim=0) * M).sum() / M.norm() / torch.stack(pairs).mean().sqrt())


def stable_rank(A: Float[Tensor, "i i"]) -> float:
    """Return the stable rank ‖A‖_F² / ‖A‖₂² = Σ_j λ_j² / max_j λ_j² of a symmetric matrix.

    Args:
        A: The matrix [i, i].

    Returns:
        The stable rank, between 1 and the rank.

    Raises:
        ValueError: A = 0.

    Example:
        >>> stable_rank(torch.diag(torch.tensor([2.0, -1.0, 0.0])))
        1.25
    """
    values = torch.linalg.eigvalsh(A.double()).abs()
    if values.max() == 0:
        raise ValueError("the stable rank of a zero matrix is undefined")
    return float((values / values.max()).square().sum())


def subspace_overlap(A: Float[Tensor, "i i"], B: Float[Tensor, "i i"], k: int) -> float:
    """Return ‖U_kᵀ V_k‖_F² / k, where U_k and V_k are the eigenvectors of the k eigenvalues of largest magnitude.

    It is 1 for equal subspaces, 0 for orthogonal ones, and on average k/i for random ones.

    Args:
        A: A symmetric matrix [i, i].
        B: The symmetric matrix to compare with [i, i].
        k: The dimension of the subspaces.

    Returns:
        The overlap.

    Raises:
        ValueError: A matrix has fewer than k eigenvalues above 10⁻⁶ of its largest.

    Example:
        >>> A, B = (torch.diag(torch.tensor(d)) for d in ([3.0, 2.0, 1.0], [-3.0, 1.0, 2.0]))
        >>> [round(subspace_overlap(A, B, k), 12) for k in (1, 2, 3)]
        [1.0, 0.5, 1.0]
    """
    return float((_leading(A, k).T @ _leading(B, k)).square().sum() / k)


def exponent(M: Float[Tensor, "i i"], A: Float[Tensor, "i i"], *, cutoff: float = 1e-6) -> tuple[float, float]:
    """Fit p in M ∝ Aᵖ: the slope (with intercept) of log uᵀMu against log uᵀAu over eigenvectors u of M.

    Eigenvectors count if uᵀMu exceeds `cutoff` × the largest, and of these the m whose uᵀAu does. The standard error is
    √(RSS / (m − 2) / Sxx). Eigenvectors of a repeated eigenvalue are not unique, and neither is the slope where A is
    not a multiple of the identity among them. A deep linear network of L balanced matrices has p = 1/(L − i) at matrix
    i, counted from 0: Tansley, Massart and Cartis 2025.

    Args:
        M: The matrix whose eigenvectors are used [i, i].
        A: The matrix to compare with [i, i].
        cutoff: The relative cutoff.

    Returns:
        The slope and its standard error.

    Raises:
        ValueError: m < 3, or all uᵀAu are equal.

    Example:
        >>> A = torch.diag(torch.tensor([1.0, 4.0, 9.0]))
        >>> [round(value, 12) for value in exponent(5 * A.sqrt(), A)]
        [0.5, 0.0]
    """
    vectors = torch.linalg.eigh(M.double()).eigenvectors.T
    quotients = torch.stack([torch.stack([u @ M.double() @ u, u @ A.double() @ u]) for u in vectors])
    for matrix in (0, 1):
        quotients = quotients[quotients[:, matrix] > cutoff * quotients[:, matrix].max()]
    y, x = quotients.log().unbind(dim=1)
    if len(x) < 3 or x.max() - x.min() < 1e-9:
        raise ValueError(f"no slope through {len(x)} points: it needs three, and different quotients of A")
    sxx = (x - x.mean()).square().sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / sxx
    residuals = y - y.mean() - slope * (x - x.mean())
    return float(slope), float((residuals.square().sum() / (len(x) - 2) / sxx).sqrt())


def _leading(A: Float[Tensor, "i i"], k: int) -> Float[Tensor, "i k"]:
    values, vectors = torch.linalg.eigh(A.double())
    order = values.abs().argsort(descending=True)
    if not 1 <= k <= int((values.abs() > 1e-6 * values.abs().max()).sum()):
        raise ValueError(f"no {k} leading eigenvectors: too few eigenvalues above 1e-6 of the largest")
    leading: Tensor = vectors[:, order[:k]]
    return leading
