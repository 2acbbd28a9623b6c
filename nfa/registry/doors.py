"""Checks of any entry point that need only the command line and the file system, before torch or MLflow is loaded."""

import os
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from nfa.errors import SHOWN, Refusal
from nfa.extras import check_extra
from nfa.registry.analyses.config import StoredRunsConfig
from nfa.registry.families.entry_point import EntryPoint
from nfa.registry.families.registry import families
from nfa.registry.folders import COUNTS, check_folder, typed_folder
from nfa.registry.places import named


@runtime_checkable
class StartsTrainings(Protocol):
    """Parameters of an entry point that starts trainings."""

    def trainings(self) -> Sequence[Any]:
        """Return the configurations of all trainings that it may start, with one seed each."""


def check(point: EntryPoint, config: Any) -> Any:
    """Check the folders, files, layers and sizes that `config` names.

    Nothing is created or changed. Stored parameters of a resumed run are not known here.

    Returns:
        What the entry point's `look` has found.

    Raises:
        Refusal: Something that `config` names cannot be used.
    """
    try:
        _check(config)
        if point.check:
            named(point.check)(config)
        return named(point.look)(config) if point.look else None
    except OSError as error:  # the name is too long, or a folder may not be entered
        got = f"{str(error.filename)[:SHOWN]} ({error.strerror})"
        raise Refusal(got, "accessible files and folders", COUNTS) from None


def _check(config: Any) -> None:
    if folder := getattr(config, "output_dir", ""):
        _check_writable("output_dir", folder)
    if isinstance(config, StoredRunsConfig) and config.data_dir:
        check_folder("data_dir", config.data_dir)
    if not getattr(config, "resume", ""):
        trainings = config.trainings() if isinstance(config, StartsTrainings) else [config]
        for family in families():
            if own := [one for one in trainings if isinstance(one, family.config)]:
                check_extra(f"workload={family.name}", family.extra)
                family.check(own)


def _check_writable(name: str, text: str) -> None:
    """Raise `Refusal` unless the folder, or its nearest existing parent, is writable."""
    folder = typed_folder(text).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        trouble = "is not writable" if there.is_dir() else "is not a folder"
        raise Refusal(f"{name}={text} ({there} {trouble})", "a writable folder", "choose another folder")
