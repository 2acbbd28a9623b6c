"""Folders: as a user types them, and where fetched and made files are kept."""

import os
from pathlib import Path

from nfa.errors import Refusal

COUNTS = "check its name; a relative one counts from where the command is typed"


def cache_folder(dataset: str) -> Path:
    """Where fetched files are kept: $NFA_CACHE, else ~/.cache/nfa."""
    return Path(os.environ.get("NFA_CACHE", Path.home() / ".cache" / "nfa")) / dataset


def typed_folder(text: str) -> Path:
    """A folder as typed; a relative one counts from where the command was typed, which `mlflow run` leaves."""
    return Path(os.environ.get("NFA_CALLER_DIR", "."), Path(text).expanduser())


def is_caller_known() -> bool:
    """Whether it can be said where the command was typed: MLflow leaves that folder, and only our plugin tells it."""
    return "NFA_CALLER_DIR" in os.environ or "MLFLOW_RUN_ID" not in os.environ


def check_folder(name: str, text: str) -> None:
    """`Refusal` for a parameter that names no folder."""
    folder = typed_folder(text)
    if not folder.is_dir():
        trouble = "is no folder" if folder.exists() else "does not exist"
        raise Refusal(f"{name}={text} ({folder.absolute()} {trouble})", "a folder with the data", COUNTS)
