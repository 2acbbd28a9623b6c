"""Sum losses in float64 where they are only reported, and in the model's precision where they are differentiated.

A softmax over 50,000 tokens that is summed in float32 has a larger error than the rounding of a long evaluation.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

ENTRIES = 2**22  # logits in float64 at a time: 32 MiB, and the same for their logarithms
HALF = (torch.bfloat16, torch.float16)


def is_differentiated(outputs: Tensor) -> bool:
    """Tell whether autograd will differentiate what is computed from a tensor.

    Args:
        outputs: The outputs of a model.

    Returns:
        True if gradients are enabled and the outputs require one.
    """
    return torch.is_grad_enabled() and outputs.requires_grad


def widened(outputs: Tensor) -> Tensor:
    """Convert outputs to float64 if they are only reported; if they are differentiated, convert half precision to
    float32.

    Args:
        outputs: The outputs of a model.

    Returns:
        The converted tensor, or the outputs themselves.
    """
    if not is_differentiated(outputs):
        return outputs.double()
    return outputs.float() if outputs.dtype in HALF else outputs


def negative_log_likelihood(logits: Float[Tensor, "r v"], labels: Int[Tensor, " r"]) -> Float[Tensor, " r"]:
    """Return the negative log-likelihood −ln softmax(f)_y of each row, in nats, computed by log-sum-exp.

    No more rows are widened at a time than fit into 64 MiB, but at least one.

    Args:
        logits: The logits f [r, v].
        labels: The class y of each row [r]; −100 marks a row without a label.

    Returns:
        The loss of each row [r], 0 where there is no label.

    Example:
        >>> negative_log_likelihood(torch.zeros(2, 4), torch.tensor([3, -100]))
        tensor([1.3863, 0.0000], dtype=torch.float64)
    """
    size = len(logits) if is_differentiated(logits) else max(1, ENTRIES // logits.shape[1])
    parts = zip(logits.split(max(1, size)), labels.split(max(1, size)), strict=True)
    return torch.cat([F.cross_entropy(widened(part), of, reduction="none") for part, of in parts])
