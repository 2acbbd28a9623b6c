"""Losses over answers' tokens, one token after the other."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def answer_loss(
    logits: Float[Tensor, "s v"], ids: Int[Tensor, " t"], start: int, first: int = 0
) -> tuple[Float[Tensor, ""], int]:
    """Σ −ln p of the tokens ids[start:], each given those before it, and how many there are.

    Row j of `logits` is what the model says after token `first` + j.

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
    """The mean over all answer tokens of several items, every token weighing the same."""
    losses = [answer_loss(*item) for item in zip(logits, ids, starts, strict=True)]
    return sum((loss for loss, _ in losses), torch.zeros((), dtype=torch.float64)) / sum(count for _, count in losses)

