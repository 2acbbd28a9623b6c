"""Run a model without changing anything in it."""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
import torch.nn as nn
from torch import Tensor

from nfa.maths.float32_products import full_float32
from nfa.seeding import untouched

CONTAINERS = (dict, OrderedDict, list, set)


@contextmanager
def inert(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode in the block, and restore module attributes (modes, buffers, counters) and generators
    bitwise.

    Gradients are available inside, also under `torch.inference_mode()`, compiled parts run uncompiled, and products of
    float32 are in full precision.
    """
    modules = list(model.modules())
    before = [_Attributes(module) for module in modules]
    numbers = _Numbers(model, before)
    model.eval()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(untouched())
            stack.enter_context(full_float32())
            if any(module._compiled_call_impl is not None for module in modules):
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield
    finally:
        for attributes in before:
            attributes.restore()
        numbers.restore()


class _Attributes:
    """A module's attributes: the values, and the content of containers, nearly all of which are empty."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.training = module, module.training
        self.attributes = vars(module)
        self.values = self.attributes.copy()
        containers = [one for one in self.values.values() if type(one) in CONTAINERS]
        self.empty = [one for one in containers if not one]
        self.filled = [(one, one.copy()) for one in containers if one]

    def restore(self) -> None:
        """Restore all of them."""
        for container in self.empty:
            container.clear()
        for container, before in self.filled:
            container.clear()
            container.extend(before) if isinstance(container, list) else container.update(before)
        self.attributes.clear()
        self.attributes.update(self.values)
        if self.module.training != self.training:  # a compiled module stores it elsewhere
            self.module.training = self.training


class _Numbers:
    """The numbers in tensors of a model that no optimizer updates."""

    def __init__(self, model: nn.Module, modules: list[_Attributes]) -> None:
        held = [*model.buffers(), *(one for of in modules for one in of.values.values())]
        tensors = [one for one in held if isinstance(one, Tensor) and not one.is_inference()]
        self.tensors = [(one, one._version, one.detach().clone()) for one in tensors]

    @torch.no_grad()
    def restore(self) -> None:
        """Restore those that have changed."""
        for tensor, version, before in self.tensors:
            if tensor._version != version:
                tensor.copy_(before)


def copied(model: nn.Module) -> nn.Module:
    """Return a copy, without the graphs of results of a forward pass that modules keep, such as normalised weights."""
    held = [one for module in model.modules() for one in vars(module).values() if isinstance(one, Tensor)]
    results = {id(one): one.detach().clone() for one in held if one.grad_fn is not None}  # deepcopy refuses them
    return copy.deepcopy(model, results)


def doubled(model: nn.Module) -> nn.Module:
    """Return a copy in float64."""
    return copied(model).double()


@contextmanager
def without_fused_attention() -> Iterator[None]:
    """Turn PyTorch's fused inference path of attention off, because it calls no function that could be recorded."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
