"""Losses of a classifier, one value per example; in float64 unless they are differentiated."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nfa.maths.exact_losses import negative_log_likelihood, widened


def mse(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the mean over classes of (f_k − y_k)² with one-hot y, for each example.

    >>> import torch
    >>> mse(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
    tensor([2.], dtype=torch.float64)
    """
    logits = widened(logits)
    return (logits - F.one_hot(labels, logits.shape[1]).to(logits.dtype)).square().mean(dim=1)


LOSSES = {"mse": mse, "cross-entropy": negative_log_likelihood}
