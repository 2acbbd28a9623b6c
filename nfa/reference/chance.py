"""What a relation gives for matrices that have nothing to do with each other: one of them is rotated at random."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.reference.comparisons import Centre, cosine, subspace_overlap


def rotation(size: int, generator: torch.Generator) -> Float[Tensor, "i i"]:
    """Return Q with the Haar distribution: from a Gaussian matrix G = QR, where R's diagonal is made positive.

    Mezzadri 2007, arXiv math-ph/0609050.

    Args:
        size: The dimension i.
        generator: The source of randomness.

    Returns:
        Q [i, i], whose determinant is 1 or −1.

    Example:
        >>> Q = rotation(3, torch.Generator().manual_seed(0))
        >>> torch.allclose(Q @ Q.T, torch.eye(3, dtype=torch.float64))
        True
    """
    gaussian = torch.randn(size, size, dtype=torch.float64, generator=generator)
    Q, R = torch.linalg.qr(gaussian)
    rotated: Tensor = Q @ torch.diag(torch.where(R.diagonal() < 0, -1.0, 1.0).double())
    return rotated


def rotated(
    A: Float[Tensor, "i i"],
    B: Float[Tensor, "r r"],
    of: Callable[[Tensor, Tensor], float],
    draws: int,
    generator: torch.Generator,
) -> Float[Tensor, " draws"]:
    """Return the values of a function of A and Q B Qᵀ.

    Args:
        A: A symmetric matrix [i, i].
        B: The symmetric matrix that is rotated [r, r].
        of: The function of two dense matrices.
        draws: The number of rotations Q.
        generator: The source of randomness.

    Returns:
        The values [draws].
    """
    values = []
    for _ in range(draws):
        Q = rotation(len(B), generator)
        values.append(of(A.double(), Q @ B.double() @ Q.T))
    return torch.tensor(values, dtype=torch.float64)


def rotated_cosines(
    A: Float[Tensor, "i i"],
    B: Float[Tensor, "i i"],
    draws: int,
    generator: torch.Generator,
    *,
    centre: Centre = "none",
) -> Float[Tensor, " draws"]:
    """Return the values of cos(A, Q B Qᵀ).

    Args:
        A: A symmetric matrix [i, i].
        B: The symmetric matrix that is rotated [i, i].
        draws: The number of rotations Q.
        generator: The source of randomness.
        centre: "entry" subtracts the mean entry of A and that of Q B Qᵀ, after the rotation.

    Returns:
        The cosines [draws].
    """
    return rotated(A, B, lambda a, b: cosine(a, b, centre=centre), draws, generator)


def rotated_overlaps(
    A: Float[Tensor, "i i"], B: Float[Tensor, "i i"], k: int, draws: int, generator: torch.Generator
) -> Float[Tensor, " draws"]:
    """Return the overlaps of the k-dimensional leading subspaces of A and Q B Qᵀ.

    Args:
        A: A symmetric matrix [i, i].
        B: The symmetric matrix that is rotated [i, i].
        k: The dimension of the subspaces.
        draws: The number of rotations Q.
        generator: The source of randomness.

    Returns:
        The overlaps [draws].
    """
    return rotated(A, B, lambda a, b: subspace_overlap(a, b, k), draws, generator)
