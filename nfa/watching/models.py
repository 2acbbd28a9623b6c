"""The model itself, out of what it is wrapped in, and the state of PyTorch in which it can be observed."""

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

PLAIN = "_original_forward"  # where accelerate keeps the forward that it puts autocast around


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile, DataParallel and DistributedDataParallel; `Refusal` for one in pieces."""
    if not isinstance(model, nn.Module):
        raise Refusal(f"a model that is a {type(model).__name__}", "a torch.nn.Module", "give the module itself")
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
def observable(model: nn.Module) -> Iterator[None]:
    """Inside, gradients can be had, whatever is set around it, and the model is in evaluation mode, in which weights
    that are computed can be read without moving anything; its state is afterwards as it was. Autocast that is set
    around it is for the model and its loss, and not for products of what they are made of.
    """
    with inert(model), torch.enable_grad(), set_aside(device_of(model).type):
        yield


@contextmanager
def without_autocast(model: nn.Module) -> Iterator[None]:
    """Inside, a model computes in the types of its weights, as one that is built again does: whatever autocast is set
    around it, or inside it by accelerate (and with it by the Hugging Face Trainer).
    """
    with inert(model), set_aside(device_of(model).type):
        for module in model.modules():
            if PLAIN in vars(module):
                module.forward = vars(module)[PLAIN]
        yield
