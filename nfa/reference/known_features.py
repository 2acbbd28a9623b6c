"""The share of a feature matrix that has the form of known features, by dense projections."""

import torch
from jaxtyping import Float
from torch import Tensor


def share_of_subspace(M: Float[Tensor, "i i"], directions: Float[Tensor, "k i"]) -> float:
    """Return tr(PM)/tr(M), where P = D⁺D projects onto the span of the rows of D.

    Args:
        M: The matrix [i, i].
        directions: The rows of D [k, i].

    Returns:
        The share.

    Raises:
        ValueError: tr(M) = 0.

    Example:
        >>> share_of_subspace(torch.eye(4), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
        0.25
    """
    D = directions.double()
    if not M.double().trace():
        raise ValueError("the share of a zero matrix is undefined")
    return round(float((torch.linalg.pinv(D) @ D @ M.double()).trace() / M.double().trace()), 14)


def share_of_sums(M: Float[Tensor, "i i"], modulus: int) -> float:
    """Return ‖Π(R)‖²/‖R‖², where R is M without the diagonals of the blocks a×a and b×b and without the mean of each
    block.

    Π is the mean over s of SᵀRS, where S is the permutation that moves a to a + s and b to b − s. What Π preserves has
    circulant blocks a×a and b×b, and a block a×b that depends on i + j.

    Args:
        M: The matrix [i, i].
        modulus: The modulus p, with i = 2p.

    Returns:
        The share.

    Raises:
        ValueError: R = 0.
    """
    p, R = modulus, M.double().clone()
    off = ~torch.eye(p, dtype=torch.bool)
    for rows, columns in ((slice(0, p), slice(0, p)), (slice(p, None), slice(p, None))):
        block = R[rows, columns]
        R[rows, columns] = torch.where(off, block - block[off].mean(), 0.0)
    for rows, columns in ((slice(0, p), slice(p, None)), (slice(p, None), slice(0, p))):
        R[rows, columns] -= R[rows, columns].mean()
    if not R.any():
        raise ValueError("the share of a zero matrix is undefined")
    moved = torch.zeros_like(R)
    for s in range(p):
        S = torch.zeros_like(R)
        for i in range(p):
            S[(i + s) % p, i] = S[p + (i - s) % p, p + i] = 1
        moved += S.T @ R @ S
    return float((moved / p).square().sum() / R.square().sum())
