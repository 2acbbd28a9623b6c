"""Inner products of the per-example gradients of one parameter, without the gradients where that is cheaper.

For a product z = W h at s positions γ = Σ_s δ_s h_sᵀ is a matrix [o, i], but the inner product ⟨γ_a, γ_b⟩ = Σ_st ⟨δ_as,
δ_bt⟩⟨h_as, h_bt⟩ does not need it: with one position it is (δδᵀ) ∘ (hhᵀ). The diagonal of this matrix is in Goodfellow
2015, arXiv 1510.01799.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.example_gradients import GradientFactors, Part
from nfa.maths.image_gradients import ImageFactors, pairs_of_pixels
from nfa.maths.lookup_gradients import Rows, scattered

ENTRIES = 2**25  # entries of a temporary tensor


def inner(a: Sequence[Part], b: Sequence[Part]) -> Float[Tensor, "n m"]:
    """Return the inner products ⟨γ_a, γ_b⟩ of all pairs of examples.

    Each γ is the sum of its parts; a parameter that several layers share has cross terms.

    Args:
        a: The parts of the first n gradients.
        b: The parts of the other m gradients, of the same parameter.

    Returns:
        The inner products [n, m].
    """
    products = [_inner(x, y) for x in a for y in b]
    return torch.stack(products).sum(dim=0) if len(products) > 1 else products[0]


def _inner(a: Part, b: Part) -> Tensor:
    if isinstance(a, GradientFactors) and isinstance(b, GradientFactors) and a.left.shape[2:] == b.left.shape[2:]:
        return _pairs_of_positions(a, b)
    if isinstance(a, ImageFactors) and isinstance(b, ImageFactors) and a.alike(b):
        return _pairs_of_pixels(a, b)
    if isinstance(a, Rows) and isinstance(b, Rows):
        return _same_rows(a, b)
    if isinstance(a, Rows) and isinstance(b, GradientFactors) and b.left.shape[2] == 1:
        return _rows_of_factors(a, b)
    if isinstance(a, GradientFactors) and isinstance(b, Rows) and a.left.shape[2] == 1:
        return _rows_of_factors(b, a).T
    return a.dense().values @ b.dense().values.T


def _pairs_of_positions(a: GradientFactors, b: GradientFactors) -> Tensor:
    n, s, groups = a.left.shape[:3]
    m, t = b.left.shape[:2]
    size = max(1, ENTRIES // max(1, s * m * t))
    rows = []
    for start in range(0, n, size):
        part = slice(start, start + size)
        total = torch.zeros((), dtype=a.left.dtype, device=a.left.device)
        for group in range(groups):
            left = a.left[part, :, group].flatten(0, 1) @ b.left[:, :, group].flatten(0, 1).T
            right = a.right[part, :, group].flatten(0, 1) @ b.right[:, :, group].flatten(0, 1).T
            total = total + left.mul_(right)
        rows.append(total if s == t == 1 else total.view(len(a.left[part]), s, m, t).sum(dim=(1, 3)))
    return torch.cat(rows)


def _pairs_of_pixels(a: ImageFactors, b: ImageFactors) -> Tensor:
    pixels = max(a.image[0, 0].numel(), a.delta[0, 0].numel())
    size = max(1, ENTRIES // max(1, pixels * max(b.image[0, 0].numel(), b.delta[0, 0].numel()) * len(b)))
    parts = [slice(start, start + size) for start in range(0, len(a), size)]
    return torch.cat([pairs_of_pixels(a.of(part), b) for part in parts])


def _same_rows(a: Rows, b: Rows) -> Tensor:
    """Multiply tables over the rows that occur, and over no more rows at a time than keeps the dense tables small."""
    used = torch.unique(torch.cat([a.index.flatten(), b.index.flatten()]))
    size = max(1, ENTRIES // (max(len(a), len(b)) * a.values.shape[2]))
    total = a.values.new_zeros(len(a), len(b))
    for some in used.split(size):
        tables = []
        for side in (a, b):
            place = torch.searchsorted(some, side.index.contiguous()).clamp(max=len(some) - 1)
            held = (some[place] == side.index).unsqueeze(2)
            tables.append(scattered(place, torch.where(held, side.values, 0), len(some)))
        total += tables[0] @ tables[1].T
    return total


def _rows_of_factors(a: Rows, b: GradientFactors) -> Tensor:
    """Multiply the two forms of a matrix [rows, d] that is also a table, as with tied embeddings.

    The product is Σ_st left_bt[index_as] ⟨right_bt, values_as⟩.
    """
    n, s = a.index.shape
    m, t = b.left.shape[:2]
    left, right = b.left.flatten(2).flatten(0, 1), b.right.flatten(2).flatten(0, 1)
    size = max(1, ENTRIES // max(1, s * m * t))
    rows = []
    for start in range(0, n, size):
        part = slice(start, start + size)
        picked = left[:, a.index[part].flatten()].T
        products = picked * (a.values[part].flatten(0, 1) @ right.T)
        rows.append(products.view(len(a.index[part]), s, m, t).sum(dim=(1, 3)))
    return torch.cat(rows)
