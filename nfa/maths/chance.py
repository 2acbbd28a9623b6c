"""What a similarity is by chance: one of the two matrices is rotated at random (Haar measure) in the space of both.

A rotation leaves the size i, the trace and the norm of a symmetric matrix unchanged, and the mean and the spread of a
similarity follow from these. Derivations are in docs/maths.md.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDING = 1e-6  # relative; ‖A‖² of a multiple of the identity may fall below (tr A)²/i by so much
EXACT = 64  # up to this size the mean with centred entries is computed from the eigenvalues
DRAWS = 4096  # random directions for that


class Level(NamedTuple):
    """What a similarity is where something is random: its mean and its standard deviation."""

    mean: float
    sd: float


class Rotated(NamedTuple):
    """What a rotation does not change in a symmetric matrix: its size i, its trace, and ‖A‖²."""

    size: int
    trace: float
    squared: float

    @property
    def traceless(self) -> float | None:
        """‖A₀‖² with A₀ = A − (tr A / i) I; None where an estimated norm is too small for its trace."""
        rest = self.squared - self.trace**2 / self.size
        return max(0.0, rest) if rest >= -ROUNDING * abs(self.squared) else None


def cosine_by_chance(a: Rotated, b: Rotated) -> Level | None:
    """Return mean and SD of cos(A, QBQᵀ) over random rotations Q, both of them exact.

    The mean is tr A tr B / (i ‖A‖ ‖B‖), the standard deviation √(2/((i − 1)(i + 2))) ‖A₀‖ ‖B₀‖ / (‖A‖ ‖B‖).

    Args:
        a: The invariants of the symmetric matrix A [i, i].
        b: The invariants of the symmetric matrix B [i, i].

    Returns:
        The level; None for i = 1, and where a matrix is zero, not finite, or has an estimated norm below that of its
        trace.

    Example:
        >>> projection = Rotated(size=4, trace=1.0, squared=1.0)
        >>> cosine_by_chance(projection, projection).mean
        0.25
    """
    norms = a.squared * b.squared
    if a.size < 2 or not 0 < norms < math.inf or a.traceless is None or b.traceless is None:
        return None
    sd = _spread(a.size) * math.sqrt(a.traceless * b.traceless / norms)
    return Level(a.trace * b.trace / (a.size * math.sqrt(norms)), sd)


def pearson_by_chance(a: Rotated, b: Rotated, eigenvalues: Float[Tensor, " i"] | None = None) -> Level | None:
    """Return mean and SD of Pearson's r of the entries of A and QBQᵀ over random rotations Q.

    With the unit vector e of equal entries and u = Qᵀe, the mean is tr A′ / ((i − 1) ‖A′‖) times the mean of
    (tr B − q)/√(‖B‖² − q²), q = uᵀBu, where A′ = A − (eᵀAe) e eᵀ. It is taken over 4,096 seeded directions u where the
    eigenvalues of B are given. Otherwise ‖B‖² − q² is replaced by its mean, which is accurate for large i.

    Args:
        a: The invariants of A′ [i, i].
        b: The invariants of B [i, i], not centred.
        eigenvalues: The eigenvalues of B [i].

    Returns:
        The level; None for i = 1, and where it is undefined.
    """
    i, centred = a.size, b.squared - (b.trace / b.size) ** 2
    if i < 2 or a.traceless is None or b.traceless is None or not 0 < a.squared * b.squared < math.inf:
        return None
    centred -= 2 * b.traceless / (i * (i + 2))
    if centred <= ROUNDING * b.squared:
        return None
    norm = math.sqrt(a.squared * centred)
    mean = a.trace * b.trace / (i * norm)
    if eigenvalues is not None:
        mean = a.trace / ((i - 1) * math.sqrt(a.squared)) * _mean_quotient(b, eigenvalues)
    return Level(mean, _spread(i) * math.sqrt(a.traceless * b.traceless) / norm)


def _mean_quotient(b: Rotated, eigenvalues: Tensor) -> float:
    """Return E[(tr B − q)/√(‖B‖² − q²)] with q = uᵀBu over random unit vectors u."""
    values = eigenvalues.double().cpu()
    squares = torch.randn(DRAWS, b.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).square()
    q = squares @ values / squares.sum(dim=1)
    rest = (float(values.square().sum()) - q.square()).clamp(min=ROUNDING * b.squared)
    return float(((float(values.sum()) - q) / rest.sqrt()).mean())


def overlap_by_chance(size: int, k: int) -> Level | None:
    """Return mean and SD of ‖UᵀV‖²/k for two random k-dimensional subspaces, k/i and √(2/((i − 1)(i + 2))) (i − k)/i.

    Args:
        size: The dimension i of the space.
        k: The dimension of the subspaces.

    Returns:
        The level; None for i = 1.

    Example:
        >>> overlap_by_chance(4, 4)
        Level(mean=1.0, sd=0.0)
    """
    return Level(k / size, _spread(size) * (size - k) / size) if size > 1 else None


def _spread(i: int) -> float:
    """Return the standard deviation of ⟨A₀, QB₀Qᵀ⟩ / (‖A₀‖ ‖B₀‖)."""
    return math.sqrt(2 / ((i - 1) * (i + 2)))
