"""Low-rank parts of a dense matrix, from its full SVD in float64."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Triplets = tuple[Float[Tensor, "o r"], Float[Tensor, " r"], Float[Tensor, "r i"]]


def lora_update(B: Float[Tensor, "o k"], A: Float[Tensor, "k i"], alpha: float, rank: int) -> Float[Tensor, "o i"]:
    """Return ΔW = (alpha/rank) B A, as a sum of outer products over k. Hu et al. 2021, arXiv 2106.09685.

    Args:
        B: The factor B [o, k].
        A: The factor A [k, i].
        alpha: The numerator of the scaling.
        rank: The denominator of the scaling.

    Returns:
        ΔW [o, i].

    Example:
        >>> lora_update(torch.ones(1, 2), torch.ones(2, 1), alpha=16, rank=8)
        tensor([[4.]], dtype=torch.float64)
    """
    matrix = sum(torch.outer(b, a) for b, a in zip(B.double().T, A.double(), strict=True))
    return alpha / rank * torch.as_tensor(matrix)


def truncated_svd(W: Float[Tensor, "o i"], rank: int) -> Triplets:
    """Return U, s and Vᵀ of the largest singular values of W, computed from the full SVD.

    Args:
        W: The matrix [o, i].
        rank: The number r of singular values.

    Returns:
        U [o, r], s [r] and Vᵀ [r, i].
    """
    u, s, vh = np.linalg.svd(W.double().numpy(), full_matrices=False)
    return torch.from_numpy(u[:, :rank].copy()), torch.from_numpy(s[:rank].copy()), torch.from_numpy(vh[:rank].copy())


def truncation_error(W: Float[Tensor, "o i"], W_r: Float[Tensor, "o i"]) -> float:
    """Return ‖W − W_r‖_F / ‖W‖_F.

    Args:
        W: The matrix [o, i].
        W_r: Its approximation [o, i].

    Returns:
        The relative error.

    Raises:
        ValueError: W = 0.
    """
    size = float(W.double().square().sum().sqrt())
    if not size:
        raise ValueError("the relative error of a zero matrix is undefined")
    return float((W.double() - W_r.double()).square().sum().sqrt()) / size


def energy_ratio(W: Float[Tensor, "o i"], rank: int) -> float:
    """Return Σ_{j ≤ rank} s_j² / Σ_j s_j² of the singular values of W.

    Args:
        W: The matrix [o, i].
        rank: The number of singular values in the numerator.

    Returns:
        The ratio.

    Raises:
        ValueError: W = 0.

    Example:
        >>> energy_ratio(torch.diag(torch.tensor([2.0, 1.0])), 1)
        0.8
    """
    squares = np.linalg.svd(W.double().numpy(), compute_uv=False) ** 2
    if not squares.sum():
        raise ValueError("the energy ratio of a zero matrix is undefined")
    return float(squares[:rank].sum() / squares.sum())


def subspace_cosines(U: Float[Tensor, "m r"], V: Float[Tensor, "m r"]) -> Float[Tensor, " r"]:
    """Return the cosines of the principal angles between two subspaces: the singular values of Uᵀ V.

    Björck and Golub 1973.

    Args:
        U: An orthonormal basis of the first subspace [m, r].
        V: An orthonormal basis of the second subspace [m, r].

    Returns:
        The cosines [r] in descending order.
    """
    return torch.from_numpy(np.linalg.svd((U.double().T @ V.double()).numpy(), compute_uv=False))
