"""Training states that a server has not taken: kept on this machine, and taken up by the next resume."""

import shutil
from collections.abc import Callable
from pathlib import Path

from nfa import unfinished
from nfa.data.catalog import cache_folder


def place(run_id: str) -> Path:
    """Where the training state of a run is kept until the server has it."""
    return cache_folder("unsent") / run_id / "latest.pt"


def keep(run_id: str, write: Callable[[Path], None]) -> Path:
    """Let `write` make the state, which is there whole or not at all; returns where it is."""
    unfinished.write(place(run_id), write)
    return place(run_id)


def forget(run_id: str) -> None:
    """Remove what is kept of a run: the server has it, or something newer."""
    shutil.rmtree(place(run_id).parent, ignore_errors=True)
