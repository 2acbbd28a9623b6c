"""What a relation gives because W stands in both matrices: whatever else stands in one of them is rotated at random.

Each function returns one value for each random rotation Q. `of` is the function of two dense matrices: cosine, or for
example `lambda A, M: subspace_overlap(A, M, 5)` or `lambda A, M: cosine(square_root(A), M)`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.reference.chance import rotated, rotation
from nfa.reference.comparisons import cosine

Compare = Callable[[Tensor, Tensor], float]


def shared_nfm(
    W: Float[Tensor, "o i"],
    S: Float[Tensor, "o o"],
    draws: int,
    generator: torch.Generator,
    *,
    of: Compare = cosine,
) -> Float[Tensor, " draws"]:
    """Compare Wᵀ Q S Qᵀ W with M = Wᵀ W, for AGOP and G.

    Args:
        W: The weight [o, i].
        S: What stands between Wᵀ and W: E[Σ_k K_kᵀ K_k] in AGOP, E[δ δᵀ] in G [o, o].
        draws: The number of rotations Q.
        generator: The source of randomness.
        of: The function of both matrices.

    Returns:
        The values [draws].
    """
    return shared_nfm_init_removed(W, torch.zeros_like(W), S, draws, generator, of=of)


def shared_nfm_init_removed(
    W: Float[Tensor, "o i"],
    initial: Float[Tensor, "o i"],
    S: Float[Tensor, "o o"],
    draws: int,
    generator: torch.Generator,
    *,
    of: Compare = cosine,
) -> Float[Tensor, " draws"]:
    """Compare Wᵀ Q S Qᵀ W with Δᵀ Δ, where Δ = W − W⁽⁰⁾.

    Args:
        W: The weight [o, i].
        initial: The initial weight W⁽⁰⁾ [o, i].
        S: What stands between Wᵀ and W in AGOP [o, o].
        draws: The number of rotations Q.
        generator: The source of randomness.
        of: The function of both matrices.

    Returns:
        The values [draws].
    """
    W, change = W.double(), W.double() - initial.double()
    return rotated(change.T @ change, S, lambda M, X: of(W.T @ X @ W, M), draws, generator)


def shared_out_h_vs_m(
    W: Float[Tensor, "o i"],
    H: Float[Tensor, "i i"],
    draws: int,
    generator: torch.Generator,
    *,
    of: Compare = cosine,
) -> Float[Tensor, " draws"]:
    """Compare H′ = W Q H Qᵀ Wᵀ of the outputs with M′ = W Wᵀ; the layer has no bias.

    Args:
        W: The weight [o, i].
        H: The second moment of the inputs [i, i].
        draws: The number of rotations Q.
        generator: The source of randomness.
        of: The function of both matrices.

    Returns:
        The values [draws].
    """
    return shared_nfm(W.T, H, draws, generator, of=of)


def shared_fact(
    W: Float[Tensor, "o i"],
    P: Float[Tensor, "o i"],
    draws: int,
    generator: torch.Generator,
    *,
    of: Compare = cosine,
) -> Float[Tensor, " draws"]:
    """Compare FACT = −½(Wᵀ Q P + Pᵀ Qᵀ W) with M = Wᵀ W.

    Args:
        W: The weight [o, i].
        P: The moment E[δ hᵀ] [o, i].
        draws: The number of rotations Q.
        generator: The source of randomness.
        of: The function of both matrices.

    Returns:
        The values [draws].
    """
    W, values = W.double(), []
    for _ in range(draws):
        product = W.T @ rotation(len(W), generator) @ P.double()
        values.append(of(-(product + product.T) / 2, W.T @ W))
    return torch.tensor(values, dtype=torch.float64)


def shared_nfm_within_range(
    W: Float[Tensor, "o i"],
    A: Float[Tensor, "i i"],
    draws: int,
    generator: torch.Generator,
    *,
    of: Compare = cosine,
    cutoff: float = 1e-6,
) -> Float[Tensor, " draws"]:
    """Compare V Σ Q T Qᵀ Σ Vᵀ with M = Wᵀ W, where W = U Σ Vᵀ has rank r and T = Uᵀ S U [r, r] is found in A = Wᵀ S W.

    Q rotates the range of W alone, so that S [o, o] itself is not needed.

    Args:
        W: The weight [o, i].
        A: AGOP or G [i, i].
        draws: The number of rotations Q.
        generator: The source of randomness.
        of: The function of both matrices.
        cutoff: Singular values above `cutoff` × the largest count in the rank.

    Returns:
        The values [draws].
    """
    _, values, right = torch.linalg.svd(W.double(), full_matrices=False)
    kept = values > cutoff * values.max()
    sigma, V = torch.diag(values[kept]), right[kept].T
    T = sigma.inverse() @ V.T @ A.double() @ V @ sigma.inverse()
    return rotated(W.double().T @ W.double(), T, lambda M, X: of(V @ sigma @ X @ sigma @ V.T, M), draws, generator)
