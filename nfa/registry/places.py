"""Things named by their place, "module:name", so that they are imported only when needed."""

from importlib import import_module
from typing import Any


def named(place: str) -> Any:
    """What "module:name" names, imported now."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
