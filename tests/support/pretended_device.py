"""A device that is not there: its tensors compute on the processor, but to mix them with other tensors is an error.

As on a GPU, a function takes tensors of one device, single numbers and indices aside, and NumPy reads none of them.
Whatever waits for a real device is counted: numbers that are read, and copies to the processor.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

HERE, PROCESSOR = torch.device("maia", 0), torch.device("cpu")  # a device that PyTorch knows by name only
WAITS: Counter[str] = Counter()
_aten: Any = torch.ops.aten
_COPIES = {_aten._to_copy.default, _aten.copy_.default}
_WRITTEN_AT = {_aten.index_put_.default, _aten.index_put.default, _aten._index_put_impl_.default}
_MADE_OF_NUMBERS = (torch.tensor, torch.as_tensor)


class OnDevice(Tensor):
    """A tensor on the device; `held` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        make: Any = Tensor._make_wrapper_subclass
        made: OnDevice = make(cls, held.shape, **layout)
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"on the device: {self.held!r}"

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return HERE

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.device.__get__:
            return HERE
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("NumPy cannot read a tensor of the device")
        with torch._C.DisableTorchFunctionSubclass():
            if func in (Tensor.to, Tensor.cpu):
                return _moved(func, *args, **(kwargs or {}))
            if func in (Tensor.untyped_storage, Tensor.data_ptr):
                return func(args[0].held)
            if func is Tensor.tolist:
                WAITS["numbers"] += 1
                return args[0].detach().held.tolist()
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Move(torch.autograd.Function):
    """Copy to the device (`there`) or to the processor."""

    @staticmethod
    def forward(ctx: Any, tensor: Any, there: bool) -> Tensor:
        ctx.back = not there
        with torch._C.DisableTorchFunctionSubclass():
            if there:
                return OnDevice(tensor.detach().clone())
            WAITS["copies"] += 1
            found: Tensor = tensor.held.clone()
            return found

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        right = isinstance(gradient, OnDevice) is ctx.back
        return (gradient if right else _Move.apply(gradient, ctx.back)), None  # type: ignore[no-untyped-call]


def _moved(func: Any, tensor: Tensor, *args: Any, **named: Any) -> Tensor:
    """Return what `.to(...)` or `.cpu()` returns."""
    device, dtype = PROCESSOR if func is Tensor.cpu else tensor.device, tensor.dtype
    for value in (*args, named.get("device"), named.get("dtype")):
        if isinstance(value, Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, str | torch.device):
            device = torch.device(value)
    converted = tensor if dtype == tensor.dtype else tensor.to(dtype)
    there = device.type == HERE.type
    if isinstance(tensor, OnDevice) is there:
        return converted
    moved: Tensor = _Move.apply(converted, there)  # type: ignore[no-untyped-call]
    return moved


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the processor; RuntimeError where devices are mixed."""
    held = {id(value.held): value for value in tree_leaves((args, kwargs)) if isinstance(value, OnDevice)}
    if func not in _COPIES:
        _check(func, args, kwargs)
    if held and func is _aten._local_scalar_dense.default:
        WAITS["numbers"] += 1
    if torch.Tag.inplace_view in func.tags:
        _change_layout(func, args, kwargs)
    there = bool(held) or torch.device(kwargs.get("device") or PROCESSOR).type == HERE.type
    args, kwargs = tree_map(lambda value: value.held if isinstance(value, OnDevice) else value, (args, kwargs))
    found = func(*args, **({**kwargs, "device": PROCESSOR} if "device" in kwargs else kwargs))
    return tree_map(lambda value: _wrapped(value, held) if there else value, found)


def _change_layout(func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    """Change what the tensor itself says of its shape, as its numbers' will be changed."""
    before = torch._C._meta_in_tls_dispatch_include()
    with no_dispatch():
        torch._C._set_meta_in_tls_dispatch_include(True)
        try:
            func(*args, **kwargs)
        finally:
            torch._C._set_meta_in_tls_dispatch_include(before)


def _check(func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    used: Any = (args, kwargs)
    if func is _aten.index.Tensor or func in _WRITTEN_AT:
        used = [args[0], *args[2:]]  # a device reads indices of the processor, too
    devices = {isinstance(one, OnDevice) for one in tree_leaves(used) if isinstance(one, Tensor) and one.dim()}
    if len(devices) > 1:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")


def _wrapped(value: Any, held: dict[int, OnDevice]) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, OnDevice):
        return value
    return held[id(value)] if id(value) in held else OnDevice(value)  # the same one, where it was written to


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What PyTorch does by itself, without an operation: `.to(device)`, and tensors of numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.to and not any(issubclass(one, OnDevice) for one in types):
            return _moved(func, *args, **kwargs)
        if func in _MADE_OF_NUMBERS and kwargs.get("device") is not None:
            return func(*args, **{**kwargs, "device": PROCESSOR}).to(kwargs["device"])
        return func(*args, **kwargs)


@contextmanager
def pretended_device() -> Iterator[torch.device]:
    """Provide the device in the block; nothing is counted yet."""
    WAITS.clear()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Operations(), _Functions():  # type: ignore[no-untyped-call]
            yield HERE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
