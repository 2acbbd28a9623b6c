"""Losses that are only read are summed in float64; those that are differentiated keep the precision of the model.

A softmax over 50,000 tokens, summed in float32, is off by more than a long evaluation's own rounding.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

ENTRIES = 2**22  # logits in float64 at a time: 32 MiB, and as much again for their logarithms
HALF = (torch.bfloat16, torch.float16)


def is_differentiated(outputs: Tensor) -> bool:
    """Whether a gradient is taken of what follows from them."""
    return torch.is_grad_enabled() and outputs.requires_grad


def widened(outputs: Tensor) -> Tensor:
    """In float64, or where they are differentiated as they are, half precision in float32."""
    if not is_differentiated(outputs):
        return outputs.double()
    return outputs.float() if outputs.dtype in HALF else outputs


def negative_log_likelihood(logits: Float[Tensor, "r v"], labels: Int[Tensor, " r"]) -> Float[Tensor, " r"]:
    """−ln softmax(f)_y of each row, by log-sum-exp; 0 where the label is −100.

    Only so many rows are widened at a time that they take 64 MiB, or one row where that takes more.

    >>> negative_log_likelihood(torch.zeros(2, 4), torch.tensor([3, -100]))
    tensor([1.3863, 0.0000], dtype=torch.float64)
    """
    size = len(logits) if is_differentiated(logits) else max(1, ENTRIES // logits.shape[1])
    parts = zip(logits.split(max(1, size)), labels.split(max(1, size)), strict=True)
    return torch.cat([F.cross_entropy(widened(part), of, reduction="none") for part, of in parts])
