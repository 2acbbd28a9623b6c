"""Loss of a decoded envelope, one value for each window; in float64 unless it is differentiated."""

from jaxtyping import Float
from torch import Tensor

from nfa.maths.exact_losses import widened

EPSILON = 1e-8  # in the loss only; a reported r has none


def correlation(outputs: Float[Tensor, "n T"], targets: Float[Tensor, "n T"]) -> Float[Tensor, " n"]:
    """Σ(f − f̄)(y − ȳ) / √(Σ(f − f̄)²·Σ(y − ȳ)² + ε²) over time: differentiable, and 0 if a signal is constant."""
    f, y = (signal - signal.mean(dim=1, keepdim=True) for signal in (outputs, targets))
    return (f * y).sum(dim=1) / (f.square().sum(dim=1) * y.square().sum(dim=1) + EPSILON**2).sqrt()


def loss_terms(
    outputs: Float[Tensor, "n T 1"], targets: Float[Tensor, "n T 1"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Mean over time of (f − y)², and (1 − r)² with r as in `correlation`, of each window.

    >>> import torch
    >>> parts = loss_terms(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[2.0], [1.0]]]))
    >>> [part.round(decimals=9).tolist() for part in parts]
    [[1.0], [4.0]]
    """
    f, y = widened(outputs).squeeze(2), targets.squeeze(2)
    y = y.to(f.dtype)
    return (f - y).square().mean(dim=1), (1 - correlation(f, y)).square()
