"""What a person at a terminal sees: one line a stage, and a bar for long work."""

import sys
from collections.abc import Iterable, Sized
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def stage(name: str, text: str) -> None:
    """One clear line: what is going on and with what."""
    tqdm.write(f"{name:>10}  {text}", file=sys.stdout)
    sys.stdout.flush()


def bar(items: Iterable[Item], name: str, *, total: int | None = None, unit: str = "it") -> "tqdm[Item]":
    """A progress bar on standard error; silent where that is not a terminal."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    return tqdm(items, desc=f"{name:>10}", total=total, unit=unit, leave=False, disable=None)
