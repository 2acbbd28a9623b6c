"""Layers whose results do not depend on how many processes share a batch."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


@dataclass
class BatchShare:
    """The rows `start` to `stop` of a training step's batch of `total` are this process's; None = all of them."""

    start: int = 0
    stop: int = 0
    total: int | None = None


class SharedDropout(nn.Module):
    """Dropout whose mask is drawn for the whole batch, of which each process takes its rows.

    All processes draw from generators in the same state, so an example's mask does not depend on their number.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.share = rate, BatchShare()

    def forward(self, x: Tensor) -> Tensor:
        total = self.share.total
        if not self.training or not self.rate or total is None:
            return F.dropout(x.contiguous(), self.rate, self.training)  # a mask is drawn in the order of memory
        whole = torch.ones((total, *x.shape[1:]), dtype=x.dtype, device=x.device)
        return x * F.dropout(whole, self.rate)[self.share.start : self.share.stop]


class _Sum(torch.autograd.Function):
    """Sum over processes; each part's gradient is the sum of what all of them make of it."""

    @staticmethod
    def forward(_ctx: Any, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm(nn.BatchNorm1d):
    """BatchNorm over examples and time with the statistics of the whole batch, on any device: [n, C, T] → the same.

    torch.nn.SyncBatchNorm does this on GPUs only. With one process it is torch.nn.BatchNorm1d itself.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.share = BatchShare()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share.total is None:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        count = self.share.total * x.shape[2]
        mean = _Sum.apply(x.sum(dim=(0, 2))) / count  # type: ignore[no-untyped-call]
        centred = x - mean[:, None]
        variance = _Sum.apply(centred.square().sum(dim=(0, 2))) / count  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum or 0.0)
        scale = self.weight * (variance + self.eps).rsqrt()
        normalised: Tensor = centred * scale[:, None] + self.bias[:, None]
        return normalised


def share_batches(model: nn.Module) -> BatchShare:
    """Return one `BatchShare` for all such layers of a model; the loop sets it before each step."""
    share = BatchShare()
    for module in model.modules():
        if isinstance(module, SharedDropout | SharedBatchNorm):
            module.share = share
    return share
