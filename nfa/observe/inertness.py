"""Running a model so that nothing of it is changed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
import torch.nn as nn

from nfa.seeding import untouched


@contextmanager
def inert(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; modes, buffers and all generators are afterwards bitwise as they were.

    Gradients can be had inside, also under `torch.inference_mode()`, and compiled parts run as they are written.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(module, {**module._buffers}) for module, _ in modes]
    values = [(buffer, buffer._version, buffer.detach().clone()) for buffer in model.buffers()]
    model.eval()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(untouched())
            if any(module._compiled_call_impl is not None for module, _ in modes):
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield
    finally:
        for module, training in modes:
            module.training = training
        for module, of_module in buffers:
            module._buffers.clear()
            module._buffers.update(of_module)
        with torch.no_grad():
            for buffer, version, before in values:
                if buffer._version != version:
                    buffer.copy_(before)


@contextmanager
def without_fused_attention() -> Iterator[None]:
    """PyTorch's fused inference path of attention calls no function that could be heard."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
