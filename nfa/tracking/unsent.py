"""Training states that a server has not taken: kept on this machine, and taken up by the next resume."""

import os
from collections.abc import Callable
from pathlib import Path

from nfa.data.catalog import cache_folder


def place(run_id: str) -> Path:
    """Where the training state of a run is kept until the server has it."""
    return cache_folder("unsent") / run_id / "latest.pt"


def keep(run_id: str, write: Callable[[Path], None]) -> Path:
    """Let `write` make the state, which is there whole or not at all; returns where it is."""
    kept = place(run_id)
    kept.parent.mkdir(parents=True, exist_ok=True)
    unfinished = kept.with_name(f".unfinished-{os.getpid()}-{kept.name}")
    try:
        write(unfinished)
        os.replace(unfinished, kept)
    finally:
        unfinished.unlink(missing_ok=True)
    return kept


def forget(run_id: str) -> None:
    """Remove what is kept of a run: the server has it, or something newer."""
    kept = place(run_id)
    for left in kept.parent.glob("*") if kept.parent.is_dir() else ():
        left.unlink(missing_ok=True)
    if kept.parent.is_dir():
        kept.parent.rmdir()
