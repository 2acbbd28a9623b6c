"""Autocast applies to a model and its loss; products of their results are not rounded."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch

_around: ContextVar[torch.dtype | None] = ContextVar("autocast that is set aside", default=None)


@contextmanager
def set_aside(device: str) -> Iterator[None]:
    """Turn surrounding autocast off in the block, except within `as_around`."""
    token = _around.set(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None)
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        _around.reset(token)


def as_around(device: str) -> AbstractContextManager[object]:
    """Restore in the block the autocast that `set_aside` has turned off, if any."""
    dtype = _around.get()
    return nullcontext() if dtype is None else torch.autocast(device, dtype=dtype, cache_enabled=False)
