"""Quantities from the eigenvalues and eigenvectors of symmetric matrices: stable rank, subspace overlap, exponent."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.congruence import Congruence
from nfa.maths.similarity import Similarity

CUTOFF = 1e-6  # relative to the largest eigenvalue; smaller values of float32 sums are rounding errors
DENSE = 256  # up to this size, computing all eigenvalues is cheaper than computing a few
TOLERANCE = 1e-12  # of eigenvalues, relative; what float32 sums leave is larger by far


class Fit(NamedTuple):
    """The slope of a linear fit and its standard error."""

    slope: float
    se: float


def leading(
    matrix: Congruence, k: int, similarity: Similarity | None = None
) -> tuple[Float[Tensor, " k"], Float[Tensor, "i k"]] | None:
    """Return the k eigenvalues of largest magnitude and their eigenvectors, in float64, on the device of the matrix.

    They are found by Lanczos iteration (ARPACK) from a fixed start, so that the factors need not be multiplied out.

    Args:
        matrix: The symmetric matrix A [i, i].
        k: The number of eigenvalues.
        similarity: What remembers norms and eigenvectors of the matrices of a site.

    Returns:
        Eigenvalues [k] in descending order of magnitude and eigenvectors [i, k]; None where ‖A‖_F² is not finite.
    """
    similarity = similarity or Similarity()
    squared = similarity.squared(matrix)
    if not math.isfinite(squared):
        return None
    found: tuple[Tensor, Tensor] = similarity.once(_leading_there, matrix, k, squared)
    return found


def _leading_there(matrix: Congruence, k: int, squared: float) -> tuple[Tensor, Tensor]:
    values, vectors = _leading(matrix, k, squared)  # on the processor, where ARPACK is
    return values.to(_device(matrix)), vectors.to(_device(matrix))


def _device(matrix: Congruence) -> torch.device:
    return (matrix.core if matrix.factor is None else matrix.factor).device  # type: ignore[union-attr]


def _leading(matrix: Congruence, k: int, squared: float) -> tuple[Tensor, Tensor]:
    matrix = matrix.double()
    scale = math.sqrt(max(0.0, squared))  # ARPACK's tolerance is partly absolute; rounding may leave less than 0
    if scale == 0:
        return torch.zeros(k, dtype=torch.float64), torch.zeros(matrix.size, k, dtype=torch.float64)
    if matrix.size <= max(DENSE, 4 * k):
        return _leading_of_all(matrix, k)
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    start, basis = np.random.default_rng(0).standard_normal(matrix.size), min(matrix.size, max(3 * k, 20))
    try:
        values, vectors = eigsh(_operator(matrix, scale), k, which="LM", v0=start, ncv=basis, tol=TOLERANCE)
    except ArpackNoConvergence:
        return _leading_of_all(matrix, k)
    order = np.argsort(-np.abs(values), kind="stable")
    return scale * torch.from_numpy(values[order].copy()), torch.from_numpy(vectors[:, order].copy())


def _leading_of_all(matrix: Congruence, k: int) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix.dense().cpu())
    order = values.abs().argsort(descending=True)[:k]
    return values[order], vectors[:, order]


def _operator(matrix: Congruence, scale: float) -> Any:
    """Return x → A x / scale as a SciPy operator."""
    from scipy.sparse.linalg import LinearOperator

    device = _device(matrix)

    def multiply(vector: np.ndarray) -> np.ndarray:
        product: np.ndarray = matrix.times(torch.from_numpy(vector).to(device).view(-1, 1)).cpu().numpy().ravel()
        return product / scale

    return LinearOperator((matrix.size, matrix.size), matvec=multiply, dtype=np.float64)


def stable_rank(matrix: Congruence, similarity: Similarity | None = None, *, k: int = 1) -> float | None:
    """Return the stable rank ‖A‖_F² / ‖A‖₂² of a symmetric matrix.

    Rudelson and Vershynin 2007, arXiv math/0503442.

    Args:
        matrix: The symmetric matrix A [i, i].
        similarity: What remembers norms and eigenvectors of the matrices of a site.
        k: How many eigenvalues are computed, so that an overlap of k dimensions finds them remembered.

    Returns:
        The stable rank, between 1 and the rank; None for A = 0 and for a matrix that is not finite.

    Example:
        >>> stable_rank(Congruence(None, torch.eye(3)))
        3.0
    """
    similarity = similarity or Similarity()
    squared, found = similarity.squared(matrix), leading(matrix, min(k, matrix.size), similarity)
    if found is None or squared <= 0:
        return None
    largest = float(found[0][0])
    return squared / largest / largest if largest else None


def subspace_overlap(a: Congruence, b: Congruence, k: int, similarity: Similarity | None = None) -> float | None:
    """Return ‖U_kᵀ V_k‖_F² / k, the mean squared cosine of the principal angles between two leading eigenspaces.

    U_k and V_k are the eigenvectors of the k eigenvalues of largest magnitude. The overlap is 1 for equal subspaces, 0
    for orthogonal ones, and about k/i for random ones. Where the eigenvalues k and k + 1 coincide, the subspace is not
    unique. Björck and Golub 1973.

    Args:
        a: The symmetric matrix A [i, i].
        b: The symmetric matrix B [i, i].
        k: The dimension of the subspaces.
        similarity: What remembers norms and eigenvectors of the matrices of a site.

    Returns:
        The overlap; None where a matrix has fewer than k eigenvalues above 10⁻⁶ of its largest, or is not finite.
    """
    first, second = (leading(matrix, k, similarity) if k <= a.size else None for matrix in (a, b))
    if first is None or second is None:
        return None
    (a_values, a_vectors), (b_values, b_vectors) = first, second
    if any(float(values[-1].abs()) <= CUTOFF * float(values[0].abs()) for values in (a_values, b_values)):
        return None
    return float((a_vectors.T @ b_vectors).square().sum()) / k


def exponent(
    nfm: Congruence, agop: Congruence, cutoff: float = CUTOFF, similarity: Similarity | None = None
) -> Fit | None:
    """Fit p in M ∝ Aᵖ: the least-squares slope of log uᵀMu against log uᵀAu over the eigenvectors u of M = NFM.

    If M = c·Aᵖ, the slope is p. In a deep linear network of L balanced matrices, M of layer i (counted from 0) is
    AGOP^(1/(L−i)). Tansley, Massart and Cartis 2025.

    Args:
        nfm: The matrix M [i, i].
        agop: The matrix A [i, i].
        cutoff: Only eigenvectors count whose quotients exceed `cutoff` × the largest quotient of their matrix.
        similarity: What remembers eigenvectors of the matrices of a site.

    Returns:
        The slope and its standard error; None for fewer than three eigenvectors, where all quotients of A are equal,
        and where a matrix is not finite.
    """
    values, vectors = (similarity or Similarity()).once(eigenvectors, nfm)
    above = (values > cutoff * values.max()) & (values > 0) if len(values) else values > 0
    values, quotients = values[above], _quotients(nfm, agop, values[above], vectors[:, above])
    if not quotients.isfinite().all():
        return None
    counted = quotients > cutoff * quotients.max() if len(quotients) else quotients > 0
    y, x = values[counted].log(), quotients[counted].log()
    if len(x) < 3:
        return None
    x, y = x - x.mean(), y - y.mean()
    spread = float(x.square().sum())
    if spread <= len(x) * (64 * torch.finfo(torch.float64).eps) ** 2:
        return None
    slope = float(x @ y) / spread
    residual = float((y - slope * x).square().sum()) / (len(x) - 2)
    return Fit(slope, (residual / spread) ** 0.5)


def _quotients(nfm: Congruence, agop: Congruence, values: Tensor, vectors: Tensor) -> Tensor:
    """Return uᵀAu for the eigenvectors u = Fᵀv/√λ of FᵀF, which is λ vᵀSv for A = FᵀSF."""
    if nfm.factor is None or nfm.core is not None:
        return (vectors * agop.double().times(vectors)).sum(dim=0)
    if agop.factor is nfm.factor and agop.core is not None:
        return values * (vectors * (agop.core.double() @ vectors)).sum(dim=0)
    vectors = nfm.factor.double().T @ vectors / values.sqrt()
    return (vectors * agop.double().times(vectors)).sum(dim=0)


def eigenvectors(matrix: Congruence) -> tuple[Float[Tensor, " m"], Float[Tensor, "r m"]]:
    """Return all eigenvalues of a matrix, or of F Fᵀ where it is FᵀF, and their eigenvectors, in float64.

    The eigenvalues ascend. There are none where an entry is not finite.

    Args:
        matrix: The matrix.

    Returns:
        Eigenvalues [m] and eigenvectors [r, m], with m = r or 0.
    """
    factor = None if matrix.factor is None or matrix.core is not None else matrix.factor.double()
    square = matrix.double().dense() if factor is None else factor @ factor.T
    if not square.isfinite().all():
        return square.new_zeros(0), square.new_zeros(len(square), 0)
    values, vectors = torch.linalg.eigh(square)
    return values, vectors
