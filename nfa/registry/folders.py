"""Folders: as a user types them, and where fetched and made files are kept."""

import os
from pathlib import Path

from nfa.errors import Refusal

COUNTS = "check the path; relative paths start at the folder where the command is typed"


def cache_folder(dataset: str) -> Path:
    """Return the folder for downloaded files: a subfolder of $NFA_CACHE, by default of ~/.cache/nfa."""
    return Path(os.environ.get("NFA_CACHE", Path.home() / ".cache" / "nfa")) / dataset


def typed_folder(text: str) -> Path:
    """Return the path of a typed folder; relative ones start where the command was typed, which `mlflow run` leaves."""
    return Path(os.environ.get("NFA_CALLER_DIR", "."), Path(text).expanduser())


def is_caller_known() -> bool:
    """Return whether it is known where the command was typed; under `mlflow run` only our plugin passes that on."""
    return "NFA_CALLER_DIR" in os.environ or "MLFLOW_RUN_ID" not in os.environ


def check_folder(name: str, text: str) -> None:
    """Raise `Refusal` unless the parameter names an existing folder."""
    folder = typed_folder(text)
    if not folder.is_dir():
        trouble = "is not a folder" if folder.exists() else "does not exist"
        raise Refusal(f"{name}={text} ({folder.absolute()} {trouble})", "a folder with the data", COUNTS)
