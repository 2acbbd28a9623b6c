"""Losses weighted by how many examples have a gradient of about the same size (GHM), in plain loops.

Letters: n example, k output.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def ghm_c(
    logits: Float[Tensor, "n k"],
    labels: Int[Tensor, " n"],
    bins: int,
    alpha: float,
    accumulated: Float[Tensor, " bins"] | None = None,
) -> tuple[Float[Tensor, " n"], Float[Tensor, ""]]:
    """Return weights w and (1/n) Σ_a w_a ℓ_a, with ℓ the cross entropy −log p_y and g = 1 − p_y its gradient norm.

    w ∝ count(bin of g)^−`alpha`, with mean 1. The bins are equal parts of [0, 1], of which the last contains 1.
    Differentiation treats w as constant. GHM-C of Li, Liu and Wang, AAAI 2019, arXiv 1811.05181, has `alpha` = 1, up to
    the factor.

    Args:
        logits: The logits [n, k].
        labels: The class of each example [n].
        bins: The number of bins.
        alpha: The exponent.
        accumulated: The counts of the bins; None takes those of the examples.

    Returns:
        The weights [n] and the weighted loss.

    Raises:
        ValueError: The bin of an example has a count of 0.

    Example:
        >>> ghm_c(torch.zeros(3, 2), torch.tensor([0, 1, 0]), bins=10, alpha=1)
        (tensor([1., 1., 1.], dtype=torch.float64), tensor(0.6931, dtype=torch.float64))
    """
    log_p = [torch.log_softmax(row, dim=0)[y] for row, y in zip(logits.double(), labels, strict=True)]
    weights = _weights([1 - float(value.detach().exp()) for value in log_p], bins, alpha, accumulated)
    return weights, -(weights * torch.stack(log_p)).mean()


def ghm_r(
    outputs: Float[Tensor, "n k"],
    targets: Float[Tensor, "n k"],
    bins: int,
    alpha: float,
    mu: float = 0.02,
    accumulated: Float[Tensor, " bins"] | None = None,
) -> tuple[Float[Tensor, "n k"], Float[Tensor, ""]]:
    """Return weights w and the mean of w·ASL₁ over all n·k elements, ASL₁ = √(d² + μ²) − μ with d = output − target.

    g = |d| / √(d² + μ²) is the magnitude of its derivative; w is as in `ghm_c`, but of elements, not of examples. This
    is GHM-R of the same paper.

    Args:
        outputs: The outputs [n, k].
        targets: The targets [n, k].
        bins: The number of bins.
        alpha: The exponent.
        mu: The constant μ.
        accumulated: The counts of the bins; None takes those of the elements.

    Returns:
        The weights [n, k] and the weighted loss.

    Raises:
        ValueError: The bin of an element has a count of 0.

    Example:
        >>> weights, loss = ghm_r(torch.tensor([[3.0, 0.0]]), torch.zeros(1, 2), bins=2, alpha=1, mu=4.0)
        >>> weights.tolist(), float(loss)
        ([[1.0, 1.0]], 0.5)
    """
    d = (outputs.double() - targets.double()).flatten()
    roots = torch.stack([(one.square() + mu**2).sqrt() for one in d])
    norms = [float(one.abs() / root) for one, root in zip(d.detach(), roots.detach(), strict=True)]
    weights = _weights(norms, bins, alpha, accumulated)
    return weights.reshape(outputs.shape), (weights * (roots - mu)).mean()


def _weights(norms: list[float], bins: int, alpha: float, accumulated: Tensor | None) -> Float[Tensor, " n"]:
    places = [sum(g >= edge / bins for edge in range(1, bins)) for g in norms]
    counts = [places.count(b) for b in range(bins)] if accumulated is None else accumulated.tolist()
    if min(counts[b] for b in places) <= 0:
        raise ValueError("an example lies in a bin whose accumulated count is 0")
    raw = [float(counts[b]) ** -alpha for b in places]
    mean = sum(raw) / len(raw)
    return torch.tensor([value / mean for value in raw], dtype=torch.float64)
