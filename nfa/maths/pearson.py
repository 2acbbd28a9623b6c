"""Pearson's correlation coefficient of pairs of signals."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

CONSTANT = 8  # roundings, in units of a signal's largest value, that deviations from its mean must exceed


def pearson(a: Float[Tensor, "n T"], b: Float[Tensor, "n T"]) -> Float64[Tensor, " n"]:
    """Return Pearson's r = Σ_t (a_t − ā)(b_t − b̄) / √(Σ_t (a_t − ā)² Σ_t (b_t − b̄)²) of each pair of rows, in
    float64.

    Neither the offset nor the scale of a signal matters, up to the range of float64.

    Args:
        a: n signals of T ≥ 1 samples [n, T].
        b: The signals to compare with [n, T].

    Returns:
        r of each pair [n]. It is NaN where r is undefined, and callers count these pairs and leave them out of any
        mean: one of the signals is constant up to rounding (no deviation from its mean above 8 ε max|a|, where ε is the
        machine epsilon of its type), or has values that are not finite.

    Example:
        >>> pearson(torch.tensor([[1.0, 2, 3], [1, 2, 3]]), torch.tensor([[2.0, 1, 0], [5, 5, 5]]))
        tensor([-1.0000,     nan], dtype=torch.float64)
    """
    return (_unit(a) * _unit(b)).sum(dim=1).clamp(-1, 1)


def _unit(a: Float[Tensor, "n T"]) -> Float64[Tensor, "n T"]:
    """Return deviations from the mean, scaled to norm 1; NaN for a constant signal.

    Division by the largest deviation keeps the squares from overflow and underflow.
    """
    signal = a.double()
    signal = signal / signal.abs().amax(dim=1, keepdim=True)
    deviations = signal - signal.mean(dim=1, keepdim=True)
    largest = deviations.abs().amax(dim=1, keepdim=True)
    deviations = deviations / largest.where(largest > CONSTANT * torch.finfo(a.dtype).eps, torch.nan)
    deviations = deviations - deviations.mean(dim=1, keepdim=True)
    unit: Tensor = deviations / torch.linalg.vector_norm(deviations, dim=1, keepdim=True)
    return unit
