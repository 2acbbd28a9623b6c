"""Importing large packages: MLflow, PyTorch and what they bring."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from nfa.registry.signals import shielded


@contextmanager
def importing() -> Iterator[None]:
    """Hold signals back, and the garbage collector, while packages are imported.

    A module whose import was interrupted cannot be imported again, not even to say so.
    """
    with shielded(), uncollected():
        yield


@contextmanager
def uncollected() -> Iterator[None]:
    """Hold the garbage collector back where next to nothing that is made is garbage, as in imports.

    Looking for it again and again would take a fifth of the time of MLflow's import.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
