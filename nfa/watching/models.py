"""Unwrap a model, and set PyTorch to a state in which the model can be observed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn as nn

from nfa.errors import Refusal
from nfa.observe.autocast import set_aside
from nfa.observe.checks import check_weights
from nfa.observe.inertness import inert
from nfa.workloads.probe import device_of

COMPILER, SHARDED, WHOLE = "torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp"  # slow imports

PLAIN = "_original_forward"  # where accelerate stores the forward that it wraps in autocast


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside torch.compile, DataParallel and DistributedDataParallel; `Refusal` for a sharded model.
    """
    if not isinstance(model, nn.Module):
        raise Refusal(f"a model that is a {type(model).__name__}", "a torch.nn.Module", "pass the module itself")
    inner = model
    while isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = inner.module
    if COMPILER in sys.modules:  # without it nothing is compiled, and its import takes seconds
        from torch._dynamo import OptimizedModule

        if isinstance(inner, OptimizedModule):
            inner = inner._orig_mod
    if inner is not model:
        return unwrapped(inner)
    _check_whole(model)
    check_weights(model)
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
            "a model whose weights are sharded across processes",
            "a model that is complete in the first process: plain, DataParallel or DistributedDataParallel",
            "load its full state_dict into an unsharded copy, and watch the copy",
        )


def is_second() -> bool:
    """Tell whether this is not the first of several processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() > 0
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0


@contextmanager
def observable(model: nn.Module) -> Iterator[None]:
    """Enable gradients and evaluation mode in the block, whatever is set around it, and restore the model's state after
    it.

    In evaluation mode, weights that are computed can be read without changing anything. Autocast that is set around the
    block applies to the model and its loss, but not to products of their results.
    """
    with inert(model), torch.enable_grad(), set_aside(device_of(model).type):
        yield


@contextmanager
def without_autocast(model: nn.Module) -> Iterator[None]:
    """Let a model compute in the types of its weights in the block, as a rebuilt model does.

    This overrides autocast that is set around the block, and autocast that accelerate (and thereby the Hugging Face
    Trainer) puts inside the model.
    """
    with inert(model), set_aside(device_of(model).type):
        for module in model.modules():
            if PLAIN in vars(module):
                module.forward = vars(module)[PLAIN]
        yield
