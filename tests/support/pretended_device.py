"""A device that is not there: tensors on it compute on the processor, but mixing them with others is an error.

As on a GPU, a function takes tensors of one device, single numbers aside; NumPy reads none of them. `.to`, `.cpu` and
`.tolist` work, and are counted, because each of them waits for a real device.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

HERE = torch.device("maia", 0)  # a device that PyTorch knows by name only
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}


class OnDevice(Tensor):
    """A tensor on the device; `held` is where its numbers are."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> "OnDevice":
        made: OnDevice = Tensor._make_wrapper_subclass(
            cls, real.shape, strides=real.stride(), storage_offset=real.storage_offset(), dtype=real.dtype
        )
        made.held = real
        return made

    @property
    def device(self) -> torch.device:
        return HERE

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func is Tensor.device.__get__:
            return HERE
        if func is Tensor.numpy or name in ("__array__", "numpy"):
            raise TypeError("a tensor of the device cannot be read by NumPy")
        with torch._C.DisableTorchFunctionSubclass():
            if func in (Tensor.to, Tensor.cpu):
                return _moved(func, *args, **kwargs)
            if func in (Tensor.untyped_storage, Tensor.data_ptr):
                return func(args[0].held)
            if func is Tensor.tolist:
                return _counted("tolist", args[0].detach()).tolist()
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


COUNTS: Counter[str] = Counter()


def _counted(name: str, tensor: Tensor) -> Tensor:
    COUNTS[name] += 1
    return tensor.held if isinstance(tensor, OnDevice) else tensor


class Move(torch.autograd.Function):
    """Copy between the device and the processor, differentiable."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, there: bool) -> Tensor:
        ctx.back = not there
        with torch._C.DisableTorchFunctionSubclass():
            if there:
                return OnDevice(tensor.detach().clone())
            return _counted("to the processor", tensor).clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        if isinstance(gradient, OnDevice) is not ctx.back:
            gradient = Move.apply(gradient, ctx.back)
        return gradient, None


def _moved(func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    target, rest = (torch.device("cpu"), []) if func is Tensor.cpu else (None, [])
    dtype = kwargs.pop("dtype", None)
    kwargs.pop("non_blocking", None), kwargs.pop("copy", None)
    for value in [*args, *([kwargs.pop("device")] if "device" in kwargs else [])]:
        if isinstance(value, Tensor):
            target, dtype = HERE if isinstance(value, OnDevice) else torch.device("cpu"), value.dtype
        elif isinstance(value, torch.dtype):
            dtype = value
        elif value is not None and not isinstance(value, bool):
            target = torch.device(value)
    there = isinstance(tensor, OnDevice) if target is None else target.type == HERE.type
    if dtype is not None and dtype != tensor.dtype:
        tensor = tensor.to(dtype)
    return tensor if isinstance(tensor, OnDevice) is there else Move.apply(tensor, there)


def run(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on the processor; RuntimeError where devices are mixed."""
    flat = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    on = [value for value in flat if isinstance(value, OnDevice)]
    target = kwargs.get("device")
    there = bool(on) if target is None else torch.device(target).type == HERE.type
    checked = flat
    if func in INDEXED:
        checked = [args[0], *(args[2:3] if func is not aten.index.Tensor else [])]
    mixed = any(isinstance(value, OnDevice) for value in checked) and any(
        not isinstance(value, OnDevice) and value.dim() for value in checked if isinstance(value, Tensor)
    )
    if mixed and func not in COPIES:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    if func is aten._local_scalar_dense.default:
        COUNTS["numbers read"] += 1
    real = tree_map(lambda value: value.held if isinstance(value, OnDevice) else value, (args, kwargs))
    if target is not None:
        real[1]["device"] = "cpu"
    found = func(*real[0], **real[1])
    written = {id(value.held): value for value in on}
    return tree_map(lambda value: _wrapped(value, written, there), found)


def _wrapped(value: Any, written: dict[int, OnDevice], there: bool) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, OnDevice):
        return value
    if id(value) in written:
        return written[id(value)]
    return OnDevice(value) if there else value


class _Factories(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class _Functions(torch.overrides.TorchFunctionMode):
    """`.to(device)` of a tensor of the processor."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.to and not any(issubclass(one, OnDevice) for one in types):
            return _moved(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def pretended_device() -> Iterator[torch.device]:
    """Provide the device in the block."""
    COUNTS.clear()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Factories(), _Functions():
            yield HERE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
