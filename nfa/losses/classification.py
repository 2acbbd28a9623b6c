"""Losses of a classifier, one value for each example."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def mse(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Mean over classes of (f_k − y_k)², y one-hot.

    >>> import torch
    >>> mse(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
    tensor([2.])
    """
    return (logits - F.one_hot(labels, logits.shape[1]).to(logits.dtype)).square().mean(dim=1)


def cross_entropy(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """−log softmax(f)_y, natural logarithm."""
    return F.cross_entropy(logits, labels, reduction="none")


LOSSES = {"mse": mse, "cross-entropy": cross_entropy}
