"""Matrix products with bfloat16 operands and float32 accumulation, on any device.

Every product inside `bfloat16_products()` rounds its operands to bfloat16 (8 bits of mantissa) and accumulates in
float32. Processors with bfloat16 units use them. On a processor without such units PyTorch's CPU fallback is about a
hundred times slower than float32, so the rounded operands are multiplied in float32 instead. This gives the same
numbers, because a product of two bfloat16 numbers is exact in float32, but it is no faster than float32.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten


def has_bfloat16_units(device: torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 matrices in hardware.

    Args:
        device: A CPU or CUDA device; any other type of device counts as having no units.

    Returns:
        True if it does.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):  # it tells of the current one
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def bfloat16_products() -> Iterator[None]:
    """Round the operands of mm, bmm, addmm and baddbmm to bfloat16 within the block.

    Only products of floating-point tensors are affected.
    """
    with _BFloat16Products():
        yield


class _BFloat16Products(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = _RULES.get(func) if args and torch.is_tensor(args[0]) and args[0].is_floating_point() else None
        return rule(*args, **(kwargs or {})) if rule else func(*args, **(kwargs or {}))


def _product(multiply: Callable[..., Tensor], a: Tensor, b: Tensor) -> Tensor:
    if not has_bfloat16_units(a.device):
        return multiply(a.bfloat16().float(), b.bfloat16().float())
    if a.device.type == "cuda":
        return multiply(a.bfloat16(), b.bfloat16(), out_dtype=torch.float32)
    return _on_units_of_the_cpu(multiply, a.bfloat16().float(), b.bfloat16().float())


def _on_units_of_the_cpu(multiply: Callable[..., Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Multiply operands that are already rounded; given bfloat16 tensors, the CPU would round the result as well."""
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        return multiply(a, b)
    finally:
        matmul.fp32_precision = before


def _plain(multiply: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def rule(a: Tensor, b: Tensor) -> Tensor:
        return _product(multiply, a, b).to(a.dtype)

    return rule


def _added(multiply: Callable[..., Tensor], *, in_place: bool) -> Callable[..., Tensor]:
    def rule(total: Tensor, a: Tensor, b: Tensor, *, beta: int | float = 1, alpha: int | float = 1) -> Tensor:
        added = torch.add(total.float() * beta, _product(multiply, a, b), alpha=alpha)
        return total.copy_(added) if in_place else added.to(total.dtype)

    return rule


_RULES: dict[Any, Callable[..., Tensor]] = {
    _aten.mm.default: _plain(torch.mm),
    _aten.bmm.default: _plain(torch.bmm),
    _aten.addmm.default: _added(torch.mm, in_place=False),
    _aten.addmm_.default: _added(torch.mm, in_place=True),
    _aten.baddbmm.default: _added(torch.bmm, in_place=False),
}


def mixed_precision(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which autocast to bfloat16 is on if `precision` asks for it.

    Args:
        precision: "bfloat16" turns autocast on, "auto" does so on a GPU with bfloat16 units, and anything else leaves
            it off.
        device: The device on which autocast is to work.

    Returns:
        An autocast context, or one that does nothing.
    """
    fast = device.type == "cuda" and has_bfloat16_units(device)
    mixed = precision == "bfloat16" or (precision == "auto" and fast)
    return torch.autocast(device.type, dtype=torch.bfloat16) if mixed else nullcontext()
