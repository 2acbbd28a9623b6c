"""The model itself, out of what it is wrapped in, and the state of PyTorch in which it can be observed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.distributed as dist
import torch.nn as nn

from nfa.errors import Refusal
from nfa.seeding import untouched

COMPILER, SHARDED, WHOLE = "torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp"  # slow imports


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile, DataParallel and DistributedDataParallel; `Refusal` for one in pieces."""
    inner = model
    while isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = inner.module
    if COMPILER in sys.modules:  # nothing is compiled without it, and its import takes seconds
        from torch._dynamo import OptimizedModule

        if isinstance(inner, OptimizedModule):
            inner = inner._orig_mod
    if inner is not model:
        return unwrapped(inner)
    _check_whole(model)
    return model


def _check_whole(model: nn.Module) -> None:
    pieces = False
    if WHOLE in sys.modules:
        from torch.distributed.fsdp import FullyShardedDataParallel

        pieces = any(isinstance(module, FullyShardedDataParallel) for module in model.modules())
    if SHARDED in sys.modules:
        from torch.distributed.tensor import DTensor

        pieces = pieces or any(isinstance(weight, DTensor) for weight in model.parameters())
    if pieces:
        raise Refusal(
            "a model whose weights are divided among processes",
            "a model that is whole in the first process: plain, DataParallel or DistributedDataParallel",
            "record a copy of it: load its full state_dict into a model of one process, and watch that",
        )


def is_second() -> bool:
    """Whether this is another process than the first of several."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() > 0
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0


@contextmanager
def observable() -> Iterator[None]:
    """Inside, gradients can be had and compiled parts run as they are written, whatever is set around it.

    All generators are afterwards as they were.
    """
    eager = torch.compiler.set_stance("force_eager") if COMPILER in sys.modules else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), eager, untouched():
        yield
