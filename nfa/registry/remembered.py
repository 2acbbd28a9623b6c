"""Results of slow checks, stored in the cache so that they need not be repeated."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from nfa import unfinished
from nfa.content import json_text, kept_json

Kept = TypeVar("Kept")


def recalled(note: Path, read: Callable[[dict[str, Any]], Kept]) -> Kept | None:
    """Return what `read` makes of a stored note, or None if it is missing, damaged, or of another version."""
    with suppress(Exception):
        return read(kept_json(note))
    return None


def keep(note: Path, content: dict[str, Any]) -> None:
    """Store a note atomically. If it cannot be written, or is not finite, nothing is stored."""
    with suppress(OSError, ValueError):
        unfinished.write(note, lambda file: file.write_text(json_text(content), encoding="utf-8"))
