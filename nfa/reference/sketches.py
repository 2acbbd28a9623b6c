"""Sketches of gradients by Kronecker products with random vectors, in plain loops."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def sketched_gram(
    gradients: Sequence[Float[Tensor, "n o i"]], vectors: Sequence[tuple[str, Float[Tensor, "d r"]]]
) -> Float[Tensor, "n n"]:
    """Return Σ_l ⟨S_l γ_a, S_l γ_b⟩ over parameters l, with S = (1 ⊗ Uᵀ)/√r or (Uᵀ ⊗ 1)/√r for the flattened γ [o·i].

    Args:
        gradients: The gradients of each parameter [n, o, i].
        vectors: For each parameter, which side is combined ("rows": o, "columns": i), and the random vectors U.

    Returns:
        The Gram matrix of the sketches [n, n].

    Example:
        >>> vectors = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
        >>> sketched_gram([torch.tensor([[[1.0, 2.0]]])], [("columns", vectors)]).round(decimals=9)
        tensor([[5.]], dtype=torch.float64)
    """
    n = len(gradients[0])
    gram = torch.zeros(n, n, dtype=torch.float64)
    for gamma, (side, u) in zip(gradients, vectors, strict=True):
        other = torch.eye(gamma.shape[2] if side == "rows" else gamma.shape[1], dtype=torch.float64)
        down = (u.double().T / u.shape[1] ** 0.5).clone(memory_format=torch.contiguous_format)
        sketch = torch.kron(down, other) if side == "rows" else torch.kron(other, down)
        rows = [sketch @ gamma[a].double().flatten() for a in range(n)]
        gram += torch.stack([torch.stack([a @ b for b in rows]) for a in rows])
    return gram
