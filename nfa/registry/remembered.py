"""What has been found out before and is kept in the cache, so as not to be found out twice."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from nfa import unfinished
from nfa.content import json_text, kept_json

Kept = TypeVar("Kept")


def recalled(note: Path, read: Callable[[dict[str, Any]], Kept]) -> Kept | None:
    """What `read` makes of a note; None where that is missing, damaged, or of another version."""
    with suppress(Exception):
        return read(kept_json(note))
    return None


def keep(note: Path, content: dict[str, Any]) -> None:
    """Write a note, whole or not at all: what cannot be written, or holds an infinity, is found out again."""
    with suppress(OSError, ValueError):
        unfinished.write(note, lambda file: file.write_text(json_text(content), encoding="utf-8"))
