"""Copies of a run's files, in the folder that `output_dir` names."""

from collections.abc import Sequence
from pathlib import Path

from nfa import unfinished
from nfa.console import stage
from nfa.errors import Refusal
from nfa.registry import tracking
from nfa.registry.folders import typed_folder
from nfa.registry.tracking import TrackedRun

FOLDERS = ("arrays", "images", "plots")  # of an analysis run


def output_folder(text: str, parts: Sequence[str] = ()) -> Path | None:
    """Return the folder that `output_dir` names. It is created when there is something to write.

    `parts` are folders inside it. Raises `Refusal` if nothing can be written there, or if a link inside it leads out.
    """
    if not text:
        return None
    folder = typed_folder(text).resolve()
    try:
        with unfinished.folder_in(folder):
            pass
    except OSError as error:
        got = f"output_dir={text} ({error.strerror})"
        raise Refusal(got, "a writable folder", "choose another folder") from None
    paths = [f"{part}/{name}/file" for part in (".", *parts) for name in FOLDERS]
    if way := tracking.blocked(folder, paths):
        got = f"output_dir={text} ({way} is a link or not a folder)"
        raise Refusal(got, "a folder without links inside it", "remove it, or choose another folder")
    return folder


def copied_into(folder: Path | None, run: TrackedRun) -> None:
    """Copy all files of a run into the folder, if there is one."""
    if folder:
        tracking.copy_artifacts(run.run_id, folder)
        stage("copy", f"all files are in {folder}")
