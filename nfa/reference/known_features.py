"""The share of a feature matrix that is as known features make it, from dense projections."""

import torch
from jaxtyping import Float
from torch import Tensor


def share_of_subspace(M: Float[Tensor, "i i"], directions: Float[Tensor, "k i"]) -> float:
    """tr(PM)/tr(M) with P = D⁺D the projection on the span of the rows of D; `ValueError` for tr(M) = 0.

    >>> share_of_subspace(torch.eye(4), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    0.25
    """
    D = directions.double()
    if not M.double().trace():
        raise ValueError("the share of a zero matrix is undefined")
    return round(float((torch.linalg.pinv(D) @ D @ M.double()).trace() / M.double().trace()), 14)


def share_of_sums(M: Float[Tensor, "i i"], modulus: int) -> float:
    """‖Π(R)‖²/‖R‖² of what is left of M, R: blocks a×a and b×b without their diagonals, each block without its mean.

    Π is the mean over s of SᵀRS, S the permutation that moves a to a + s and b to b − s: what it leaves as it is has
    circulant blocks a×a and b×b and a block a×b that depends on i + j. `ValueError` for R = 0.
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
