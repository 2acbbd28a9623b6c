"""Losses over the tokens of answers, one token after another."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def answer_loss(
    logits: Float[Tensor, "s v"], ids: Int[Tensor, " t"], start: int, first: int = 0
) -> tuple[Float[Tensor, ""], int]:
    """Sum −ln p over the tokens ids[start:], each given the tokens before it.

    Args:
        logits: Row j [v] is the prediction after token `first` + j [s, v].
        ids: The tokens of the sequence [t].
        start: The position of the first answer token.
        first: The position of the token to which row 0 belongs.

    Returns:
        The sum in nats, and the number of answer tokens.

    Example:
        >>> answer_loss(torch.zeros(3, 4), torch.tensor([3, 1, 2]), start=1)
        (tensor(2.7726, dtype=torch.float64), 2)
    """
    total = torch.zeros((), dtype=torch.float64)
    for place in range(start, len(ids)):
        row = logits[place - 1 - first].double()
        largest = float(row.detach().max())
        log_sum = largest + (row - largest).exp().sum().log()
        total = total + log_sum - row[int(ids[place])]
    return total, len(ids) - start


def token_mean(
    logits: Sequence[Float[Tensor, "s v"]], ids: Sequence[Int[Tensor, " t"]], starts: Sequence[int]
) -> Float[Tensor, ""]:
    """Return the mean loss over all answer tokens of several items, with equal weights.

    Args:
        logits: The logits of each item [s, v].
        ids: The tokens of each item [t].
        starts: The position of the first answer token of each item.

    Returns:
        The mean in nats.
    """
    losses = [answer_loss(*item) for item in zip(logits, ids, starts, strict=True)]
    return sum((loss for loss, _ in losses), torch.zeros((), dtype=torch.float64)) / sum(count for _, count in losses)

