"""The dense matrices of a site: second moments, FACT, AGOP, NFM."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


def second_moment(
    x: Float[Tensor, "n s f"], y: Float[Tensor, "n s g"], *, positions: Literal["each", "sum"] = "each"
) -> Float[Tensor, "f g"]:
    """Return E[x yᵀ] = (1/n) Σ_n Σ_s x_ns y_nsᵀ.

    H = E[h hᵀ] for inputs, H′ = E[z zᵀ] for outputs, G′ = E[δ δᵀ] for loss gradients, and G = E[g gᵀ] for g = −Wᵀδ.
    Ziyin et al. 2024, arXiv 2410.03006.

    Args:
        x: Left rows [n, s, f].
        y: Right rows [n, s, g].
        positions: "each" pairs rows of the same position s; "sum" pairs Σ_s x_ns with Σ_s y_ns.

    Returns:
        The moment [f, g].

    Example:
        >>> second_moment(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [4.0]]]), positions="sum")
        tensor([[21.]], dtype=torch.float64)
    """
    matrix = torch.zeros(x.shape[-1], y.shape[-1], dtype=torch.float64)
    for a, b in zip(x.double(), y.double(), strict=True):
        pairs = [(a.sum(dim=0), b.sum(dim=0))] if positions == "sum" else zip(a, b, strict=True)
        matrix += sum(torch.outer(u, v) for u, v in pairs)
    return matrix / len(x)


def fact(W: Float[Tensor, "o i"], h: Float[Tensor, "n s i"], delta: Float[Tensor, "n s o"]) -> Float[Tensor, "i i"]:
    """Return FACT = ½(E[g hᵀ] + E[h gᵀ]) with g = −Wᵀδ. arXiv 2507.05644.

    Args:
        W: The weight [o, i].
        h: The inputs [n, s, i].
        delta: The loss gradients δ [n, s, o].

    Returns:
        FACT [i, i].
    """
    g = -delta.double() @ W.double()
    matrix = second_moment(g, h)
    return (matrix + matrix.T) / 2


def agop(
    J: Float[Tensor, "n s k i"],
    *,
    positions: Literal["each", "sum"] = "each",
    centre: Literal["none", "jacobian"] = "none",
    power: float = 1,
) -> Float[Tensor, "i i"]:
    """Return AGOP = (1/n) Σ_n Σ_s Σ_k J_nskᵀ J_nsk, with rows J_nsk [i].

    Radhakrishnan et al., Science 2024, arXiv 2212.13881; centred: Beaglehole et al. 2024, arXiv 2402.05271.

    Args:
        J: The Jacobians [n, s, k, i].
        positions: "sum" replaces J_n by Σ_s J_ns first.
        centre: "jacobian" subtracts from each J_k its mean over examples and positions first.
        power: 1, or 0.5 for the positive semidefinite square root.

    Returns:
        AGOP [i, i].

    Raises:
        ValueError: An option has another value.

    Example:
        >>> agop(torch.tensor([[[[1.0, 2.0]]], [[[3.0, 0.0]]]]))
        tensor([[5., 1.],
                [1., 2.]], dtype=torch.float64)
    """
    if positions not in ("each", "sum") or centre not in ("none", "jacobian") or power not in (1, 0.5):
        raise ValueError(f"positions={positions}, centre={centre}, power={power}: no such convention")
    J = J.double()
    if positions == "sum":
        J = J.sum(dim=1, keepdim=True)
    if centre == "jacobian":
        J = J - J.mean(dim=(0, 1))
    matrix = torch.zeros(J.shape[-1], J.shape[-1], dtype=torch.float64)
    for row in J.flatten(0, 2):
        matrix += torch.outer(row, row)
    matrix /= len(J)
    return square_root(matrix) if power == 0.5 else matrix


def directional_agop(J: Float[Tensor, "n s k i"], signs: Float[Tensor, "n r k"]) -> Float[Tensor, "r i i"]:
    """Return A_r = (1/n) Σ_n Σ_s (Σ_k v_nrk J_nsk)ᵀ (Σ_k v_nrk J_nsk), the AGOP of random combinations of the outputs.

    Its expectation over independent signs v = ±1 is AGOP.

    Args:
        J: The Jacobians [n, s, k, i].
        signs: The signs v [n, r, k].

    Returns:
        The estimates A_r [r, i, i].

    Example:
        >>> J = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]]]])
        >>> directional_agop(J, torch.tensor([[[1.0, 1.0], [1.0, -1.0]]])).mean(dim=0)
        tensor([[1., 0.],
                [0., 4.]], dtype=torch.float64)
    """
    combined = torch.einsum("nrk,nski->rnsi", signs.double(), J.double())
    return torch.stack([agop(rows[:, :, None]) for rows in combined])


def square_root(A: Float[Tensor, "i i"]) -> Float[Tensor, "i i"]:
    """Return the square root V diag(√λ) Vᵀ of a positive semidefinite matrix V diag(λ) Vᵀ.

    Args:
        A: The matrix [i, i]; eigenvalues below 0 count as 0.

    Returns:
        The root [i, i].

    Example:
        >>> square_root(torch.tensor([[4.0, 0.0], [0.0, 9.0]])).round(decimals=12)
        tensor([[2., 0.],
                [0., 3.]], dtype=torch.float64)
    """
    values, vectors = torch.linalg.eigh(A.double())
    root: Tensor = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    return root


def nfm(W: Float[Tensor, "o i"]) -> Float[Tensor, "i i"]:
    """Return the neural feature matrix M = Wᵀ W; that of Wᵀ is M′ = W Wᵀ. Radhakrishnan et al. 2024, arXiv 2212.13881.

    Args:
        W: The weight [o, i].

    Returns:
        M [i, i].

    Example:
        >>> nfm(torch.tensor([[1.0, 2.0]]))
        tensor([[1., 2.],
                [2., 4.]], dtype=torch.float64)
    """
    W = W.double()
    return W.T @ W


def nfm_init_removed(W: Float[Tensor, "o i"], initial: Float[Tensor, "o i"]) -> Float[Tensor, "i i"]:
    """Return M₀ = (W − W⁽⁰⁾)ᵀ (W − W⁽⁰⁾).

    Args:
        W: The weight [o, i].
        initial: The initial weight W⁽⁰⁾ [o, i].

    Returns:
        M₀ [i, i].

    Example:
        >>> nfm_init_removed(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
        tensor([[0., 0.],
                [0., 4.]], dtype=torch.float64)
    """
    return nfm(W.double() - initial.double())
