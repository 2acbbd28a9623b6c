"""Objects named as "module:name", so that they are imported only when needed."""

from importlib import import_module
from typing import Any


def named(place: str) -> Any:
    """Import and return the object that "module:name" names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
