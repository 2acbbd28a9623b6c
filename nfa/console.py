"""What a person at a terminal sees: one line per stage, and a progress bar for long work."""

import os
import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

from nfa.masking import masked

Item = TypeVar("Item")
_muted = 0


def stage(name: str, text: str) -> None:
    """Print one line, without passwords: what is being done, and with what. If standard output is closed, work
    continues.
    """
    if not _muted:
        try:
            tqdm.write(masked(f"{name:>10}  {text}"), file=sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def bar(items: Iterable[Item], name: str, *, total: int | None = None, unit: str = "it") -> "tqdm[Item]":
    """Return a progress bar on standard error; it is silent if that is not a terminal."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    return tqdm(items, desc=f"{name:>10}", total=total, unit=unit, leave=False, disable=True if _muted else None)


@contextmanager
def muted() -> Iterator[None]:
    """Suppress lines and bars in the block, for one of many trainings that are each reported in one line."""
    global _muted
    _muted += 1
    try:
        yield
    finally:
        _muted -= 1
