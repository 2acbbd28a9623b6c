"""Products of float32 numbers in full precision, whatever PyTorch is set to.

PyTorch may round the operands of float32 products: to TF32 (10 bits of mantissa) in convolutions on a GPU unless it is
told otherwise, in matrix products on a GPU after `torch.set_float32_matmul_precision("high")`, and to bfloat16 on a
processor after "medium". Values would then be off by 1e-3.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

FULL = ("none", "ieee")


@contextmanager
def full_float32() -> Iterator[None]:
    """Round no operand of a float32 product in the block; afterwards PyTorch's settings are as they were.

    Where the older functions can tell a setting it is changed by them, because PyTorch refuses to read it by them after
    a change by the newer attributes alone.
    """
    before = [setting.fp32_precision for setting in _settings()]
    older = {change: value for read, change, full in _OLDER if (value := _told(read)) not in (None, full)}
    try:
        for _, change, full in _OLDER:
            if change in older:
                change(full)
        for setting in _settings():
            if setting.fp32_precision not in FULL:
                setting.fp32_precision = "ieee"
        yield
    finally:
        for change, value in reversed(older.items()):
            change(value)
        for setting, value in zip(_settings(), before, strict=True):
            if setting.fp32_precision != value:
                setting.fp32_precision = value


def _settings() -> list[Any]:
    """Return what has a precision of its own; a part that has none takes that of the whole, which comes before it."""
    of: Any = torch.backends
    on_gpus = (of.cudnn, of.cuda.matmul, of.cudnn.conv, of.cudnn.rnn)
    return [of, *on_gpus, of.mkldnn, of.mkldnn.matmul, of.mkldnn.conv, of.mkldnn.rnn]


def _told(read: Callable[[], Any]) -> Any:
    """Return a setting as an older function tells it; None where only the newer attributes can tell it."""
    try:
        return read()
    except RuntimeError:
        return None


def _of_products_on_gpus(value: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = value


def _of_convolutions_on_gpus(value: bool) -> None:
    torch.backends.cudnn.allow_tf32 = value


_OLDER: list[tuple[Callable[[], Any], Callable[[Any], None], Any]] = [  # what reads, what changes, full precision
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    (lambda: torch.backends.cuda.matmul.allow_tf32, _of_products_on_gpus, False),
    (lambda: torch.backends.cudnn.allow_tf32, _of_convolutions_on_gpus, False),
]
