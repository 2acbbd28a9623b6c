"""Similarities other than the plain cosine over random rotations of what stands between the same weights.

A rotated matrix is A = V Σ X Σ Vᵀ, where V [i, r] are the singular vectors of W, Σ its singular values and X = QSQᵀ.
Everything is computed in the r coordinates V, for all rotations at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.chance import Level
from nfa.maths.haar import haar_rows
from nfa.maths.spectrum import CUTOFF

AFFORDABLE = 64  # dimensions, up to which every rotation is made and decomposed

Rotated = Float[Tensor, "draws r r"]
Values = Float[Tensor, " draws"]


@dataclass(frozen=True)
class Other:
    """The matrix B that is compared with, in the coordinates V.

    Args:
        inside: Vᵀ B V [r, r].
        leading: Vᵀ times the leading eigenvectors of B [r, k].
        squared: ‖B‖², centred where similarities are.
        mean_entry: The mean entry of B.
        ones: Vᵀ 1 [r].
        size: The number i of rows of B.
    """

    inside: Float[Tensor, "r r"]
    leading: Float[Tensor, "r k"]
    squared: float
    mean_entry: float
    ones: Float[Tensor, " r"]
    size: int


def rotations(
    count: int, size: int, measure: Callable[[Float[Tensor, "draws r d"]], Values], *, seed: int = 0
) -> Level | None:
    """Return mean and SD of a similarity over seeded rotations.

    Args:
        count: The number r of rows of a rotation that matter.
        size: The number d of dimensions.
        measure: A function of these rows, for all rotations; NaN where it is undefined.
        seed: The seed of the rotations.

    Returns:
        The level; None where fewer than half of the rotations have a value.
    """
    levels = torch.cat([measure(rows) for rows in haar_rows(count, size, seed)])
    defined = levels[levels.isfinite()]
    return Level(float(defined.mean()), float(defined.std())) if 2 * len(defined) > len(levels) else None


def rotated(rows: Float[Tensor, "draws r d"], core: Float[Tensor, "d d"], values: Float[Tensor, " r"]) -> Rotated:
    """Return ΣXΣ, the rotated matrix in the coordinates V.

    Args:
        rows: The rows of the rotations that belong to singular vectors of W [draws, r, d].
        core: S, which is rotated [d, d].
        values: The squared singular values of W [r].

    Returns:
        The matrices [draws, r, r].
    """
    roots, rows = values.double().sqrt(), rows.to(core.device)  # they are drawn on the processor
    turned: Tensor = rows @ core.double() @ rows.transpose(1, 2)
    return roots[:, None] * turned * roots


def paired(
    rows: Float[Tensor, "draws r o"], pairs: Float[Tensor, "o i"], values: Float[Tensor, " r"], vectors: Tensor
) -> Float[Tensor, "draws i i"]:
    """Return −½ (WᵀQP + PᵀQᵀW) with W = UΣVᵀ.

    Args:
        rows: UᵀQ of the rotations Q [draws, r, o].
        pairs: P = E[δ hᵀ] [o, i].
        values: The squared singular values of W [r].
        vectors: V [i, r].

    Returns:
        The matrices [draws, i, i].
    """
    half = (vectors.double() * values.double().sqrt()) @ (rows.to(pairs.device) @ pairs.double())
    return -0.5 * (half + half.transpose(1, 2))


def overlaps(rotated: Rotated, other: Other) -> Values:
    """Return ‖UᵀV‖²/k of the leading eigenspaces.

    Args:
        rotated: The rotated matrices [draws, r, r].
        other: The matrix that is compared with.

    Returns:
        The overlaps [draws]; NaN where a matrix has fewer than k eigenvalues above 10⁻⁶ of its largest.
    """
    k = other.leading.shape[1]
    values, vectors = torch.linalg.eigh(rotated)
    order = values.abs().argsort(dim=1, descending=True)[:, :k]
    values = values.abs().gather(1, order)
    vectors = vectors.gather(2, order[:, None].expand(-1, vectors.shape[1], -1))
    shares: Tensor = (vectors.transpose(1, 2) @ other.leading).square().sum(dim=(1, 2)) / k
    return shares.where(values[:, -1] > CUTOFF * values[:, 0], torch.nan)


def square_roots(rotated: Rotated) -> Rotated:
    """Return the square roots of positive matrices.

    Args:
        rotated: The matrices [draws, r, r].

    Returns:
        Their roots [draws, r, r].
    """
    values, vectors = torch.linalg.eigh(rotated)
    roots: Tensor = (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.transpose(1, 2)
    return roots


def cosines(rotated: Rotated, other: Other, *, centred: bool) -> Values:
    """Return cosines.

    Args:
        rotated: The rotated matrices A [draws, r, r].
        other: The matrix that is compared with.
        centred: Whether the mean entry of each matrix is subtracted.

    Returns:
        The cosines [draws]; not finite where one is undefined.
    """
    inner, squared = (rotated * other.inside).sum(dim=(1, 2)), rotated.square().sum(dim=(1, 2))
    if centred:
        totals = ((rotated @ other.ones) * other.ones).sum(dim=1)
        inner, squared = inner - totals * other.mean_entry, squared - (totals / other.size).square()
    return inner / (squared * other.squared).sqrt()


def exponents(rotated: Rotated, values: Float[Tensor, " r"]) -> Values:
    """Return the slopes of log uᵀMu against log uᵀAu over the eigenvectors u of M.

    Args:
        rotated: The rotated matrices A in the eigenvectors of M [draws, r, r].
        values: The eigenvalues of M [r].

    Returns:
        The slopes [draws]; not finite where one is undefined.
    """
    y, x = values.double().log(), rotated.diagonal(dim1=1, dim2=2).log()
    x, y = x - x.mean(dim=1, keepdim=True), y - y.mean()
    return (x @ y) / x.square().sum(dim=1)
