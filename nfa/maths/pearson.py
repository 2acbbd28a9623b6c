"""Pearson's r of pairs of signals."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

CONSTANT = 8  # roundings, in units of a signal's largest value, that deviations from its mean must exceed


def pearson(a: Float[Tensor, "n T"], b: Float[Tensor, "n T"]) -> Float64[Tensor, " n"]:
    """r = Σ_t (a_t − ā)(b_t − b̄) / √(Σ_t (a_t − ā)² Σ_t (b_t − b̄)²) of each row, in float64; T ≥ 1.

    NaN where r is undefined, which callers count and leave out of any mean: a signal that is constant up to rounding
    (no deviation from its mean above 8 ε max|a|, ε that of the signal's own dtype), or one with values that are not
    finite. Neither offset nor scale matters otherwise, up to the ends of float64.

    >>> pearson(torch.tensor([[1.0, 2, 3], [1, 2, 3]]), torch.tensor([[2.0, 1, 0], [5, 5, 5]]))
    tensor([-1.0000,     nan], dtype=torch.float64)
    """
    return (_unit(a) * _unit(b)).sum(dim=1).clamp(-1, 1)


def _unit(a: Float[Tensor, "n T"]) -> Float64[Tensor, "n T"]:
    """Deviations from the mean, of norm 1; NaN for a constant signal. Divided by the largest, no square over- or
    underflows."""
    signal = a.double()
    signal = signal / signal.abs().amax(dim=1, keepdim=True)
    deviations = signal - signal.mean(dim=1, keepdim=True)
    largest = deviations.abs().amax(dim=1, keepdim=True)
    deviations = deviations / largest.where(largest > CONSTANT * torch.finfo(a.dtype).eps, torch.nan)
    deviations = deviations - deviations.mean(dim=1, keepdim=True)
    unit: Tensor = deviations / torch.linalg.vector_norm(deviations, dim=1, keepdim=True)
    return unit
