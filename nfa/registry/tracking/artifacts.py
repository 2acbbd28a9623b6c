"""Files of a run, written atomically and verified when they are read."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from mlflow.entities import Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from nfa import content, disk_space, unfinished
from nfa.console import stage
from nfa.content import Found
from nfa.errors import NfaError, headline, reading
from nfa.masking import masked, masked_values
from nfa.registry.signals import shielded
from nfa.registry.tracking.guarded_client import guarded_call
from nfa.registry.tracking.places import local_folder
from nfa.registry.tracking.store import StoreError, client

if TYPE_CHECKING:
    from torch import Tensor

SERIES = "series.npz"  # the metrics of a run once more, as one file
PREVIEW = "plots/preview.png"  # a figure once more, small enough for the UI's page of the run
OF_THE_RUN = (SERIES, PREVIEW)  # what copies of a run's artifacts leave out
BAR = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
OLD = re.compile(r"0\.[0-6]\.")  # versions whose files have no digests


def put(run: Run, path: str, write: Callable[[Path], None]) -> None:
    """Store the file that `write` makes at `path` among the run's artifacts; readers never see a partial file."""
    folder = local_folder(run)
    with shielded():
        if folder is not None:
            unfinished.write(folder / path, write)
            return
        with tempfile.TemporaryDirectory(dir=unfinished.place()) as scratch:
            source = Path(scratch, Path(path).name)
            write(source)
            parent = str(Path(path).parent)
            client().log_artifact(run.info.run_id, str(source), None if parent == "." else parent)


def put_json(run: Run, path: str, values: Mapping[str, Any]) -> None:
    """Store an object as a JSON file with its digest; NaN and infinity raise `ValueError`, passwords are masked."""
    text = content.json_text(masked_values(values))
    put(run, path, lambda file: _write_text(file, text))


def put_text(run: Run, path: str, text: str) -> None:
    """Store a text file with masked passwords."""
    put(run, path, lambda file: _write_text(file, masked(text)))


def _write_text(file: Path, text: str) -> None:
    file.write_text(text + "\n", encoding="utf-8")


def put_array(run: Run, path: str, array: "np.ndarray[Any, Any]") -> None:
    """Store a NumPy array as a .npy file with its digest."""
    put(run, path, lambda file: content.write_array(file, array))


def put_arrays(run: Run, path: str, arrays: "Mapping[str, np.ndarray[Any, Any]]") -> None:
    """Store NumPy arrays by name as a compressed .npz file with its digest."""
    put(run, path, lambda file: content.write_arrays(file, arrays))


def get_array(run_id: str, path: str) -> "np.ndarray[Any, Any]":
    """Return the content of a .npy artifact."""
    found: np.ndarray[Any, Any] = read(run_id, path)
    return found


def put_tensors(run: Run, path: str, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] = {}) -> None:
    """Store tensors as a safetensors file with its digest."""
    put(run, path, lambda file: content.write_tensors(file, tensors, metadata))


def get_tensors(run_id: str, path: str) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Return the tensors and metadata of a safetensors artifact, all in memory."""
    found: tuple[dict[str, Tensor], dict[str, str]] = read(run_id, path, content.read_tensors)
    return found


def put_images(run: Run, key: str, paths: Mapping[int, str]) -> None:
    """Log pictures that are artifacts of the run as an image series by step; MLflow's UI shows it with a slider."""
    from PIL import Image

    for step, path in paths.items():
        with Image.open(get(run.info.run_id, path)) as picture, unfinished.temporary_files(), shielded():
            client().log_image(run.info.run_id, picture.convert("RGB"), key=key, step=step)


def get(run_id: str, path: str) -> Path:
    """Return the file of an artifact, or a local copy that is deleted when this process ends."""
    return file_of(client().get_run(run_id), path)


def file_of(run: Run, path: str) -> Path:
    """Return what `get` returns, without asking the store for the run."""
    if folder := local_folder(run):
        return folder / path
    repository = get_artifact_repository(run.info.artifact_uri)
    with _without_bar():
        return Path(guarded_call(repository.download_artifacts, path, tempfile.mkdtemp(dir=unfinished.place())))


@contextmanager
def _without_bar() -> Iterator[None]:
    """Let MLflow show no progress bar, which it has for every single file, unless the user has asked for it."""
    asked = BAR in os.environ
    os.environ.setdefault(BAR, "false")
    try:
        yield
    finally:
        if not asked:
            os.environ.pop(BAR, None)


def get_json(run_id: str, path: str) -> Any:
    """Return the content of a JSON artifact."""
    return read(run_id, path)


# ---- verified reading


class Whole(NamedTuple):
    """A verified artifact: its file, or a local copy, and its content."""

    file: Path
    content: Any


def read(run_id: str, path: str, reader: Callable[[Path], Found] | None = None) -> Any:
    """Return the content of a run's file, read by its extension or by `reader`; raise `Refusal` if it is damaged."""
    found = whole(run_id, path, reader)
    if any(part.startswith(unfinished.PREFIX) for part in found.file.parts):
        found.file.unlink()  # the copy is not needed any more
    return found.content


def whole(run_id: str, path: str, reader: Callable[[Path], Found] | None = None) -> Whole:
    """Return a verified file of a run and its content; the default reader does not keep tensors.

    Raises `Refusal` if the file is missing or damaged.
    """
    file = _existing(run_id, path)
    with reading_of(run_id, path):
        found = (reader or content.READERS[file.suffix])(file)
    if not found.sealed:
        _check_unsealed(run_id, path)
    return Whole(file, found.content)


def reading_of(run_id: str, path: str) -> AbstractContextManager[None]:
    """Turn any error while reading a run's file into a `Refusal` that names the file and the run."""
    again = f"delete the run (mlflow runs delete --run-id {run_id}) and start it again"
    remedy = f"restore it from a copy of the run; without a copy, {again}"
    return reading(f"{path} of run {run_id[:12]}", "the file as it was written", remedy)


def _existing(run_id: str, path: str) -> Path:
    """Return the file of an artifact; raise `FileNotFoundError` if the store works but does not have it."""
    try:
        return get(run_id, path)
    except StoreError:
        if has_artifact(run_id, path):
            raise
    with reading_of(run_id, path):
        raise FileNotFoundError("No such file")


def _check_unsealed(run_id: str, path: str) -> None:
    """Raise `ValueError` for a file without a digest, unless the run was made by a version that wrote none."""
    version = client().get_run(run_id).data.tags.get("nfa.version", "")
    if not OLD.match(version):
        with reading_of(run_id, path):
            raise ValueError("damaged: its digest is missing")
    _say_unsealed(run_id, version)


@cache
def _say_unsealed(run_id: str, version: str) -> None:
    said = f"run {run_id[:12]} was made by version {version}: its files have no digests and cannot be verified"
    stage("notice", said)


def names(run_id: str, folder: str) -> list[str]:
    """Return the paths of the files in an artifact folder, sorted; empty if there are none."""
    return sorted(item.path for item in client().list_artifacts(run_id, folder or None))


def files(run_id: str) -> list[str]:
    """Return the names at the root of a run's artifacts."""
    return names(run_id, "")


def put_file(run: Run, path: str, source: Path) -> None:
    """Store a copy of a file."""
    put(run, path, partial(shutil.copyfile, source))


def all_names(run_id: str, folder: str = "") -> list[str]:
    """Return the paths of all files of a run, in all folders, except for that of its series, which is a copy itself."""
    found = []
    for item in client().list_artifacts(run_id, folder or None):
        found += all_names(run_id, item.path) if item.is_dir else [item.path]
    return sorted(path for path in found if path not in OF_THE_RUN)


def copy_artifacts(run_id: str, folder: Path, paths: Mapping[str, str] | None = None) -> None:
    """Copy files of a run into a folder: all of them as one tree, or those of `paths`, each to the given place.

    Links at the place of a file are replaced. Raises `NfaError`, and copies nothing, if a file is not available, if
    there is not enough space, or if a link leads out of the folder.
    """
    try:
        places = {path: path for path in all_names(run_id)} if paths is None else paths
        with unfinished.folder_in(folder) as scratch:
            for number, path in enumerate(places):
                shutil.copyfile(get(run_id, path), scratch / str(number))
            if way := blocked(folder, places.values()):
                raise OSError(f"{way} is a link or not a folder")
            for number, place in enumerate(places.values()):
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                os.replace(scratch / str(number), folder / place)
    except StoreError as error:
        remedy = f"fix it and copy from run {run_id}, which has all files"
        raise NfaError(f"the files could not be copied to {folder}: {headline(error)}\n  do: {remedy}") from error


def blocked(folder: Path, paths: Iterable[str]) -> Path | None:
    """Return the first parent of these paths inside a folder that is a link or not a folder; None if there is none."""
    ways = {folder / way for path in paths for way in list(Path(path).parents)[:-1]}
    return next((way for way in sorted(ways) if way.is_symlink() or (way.exists() and not way.is_dir())), None)


def copy_artifacts_into(run: Run, run_id: str, folder: str) -> None:
    """Copy all files of another run into a folder of this run's artifacts."""
    for path in all_names(run_id):
        copy_artifact(run, run_id, path, f"{folder}/{path}")


def copy_artifact(run: Run, run_id: str, path: str, target: str = "") -> None:
    """Copy one file of another run to `target`, by default to the same path, among this run's artifacts."""
    put(run, target or path, partial(shutil.copyfile, get(run_id, path)))


def remove(run: Run, path: str) -> None:
    """Delete a file from a run's artifacts, if it exists."""
    with shielded():
        if folder := local_folder(run):
            (folder / path).unlink(missing_ok=True)
        elif has_artifact(run.info.run_id, path):
            get_artifact_repository(run.info.artifact_uri).delete_artifacts(path)


def sweep_unfinished(run: Run) -> None:
    """Delete unfinished files that a killed process has left among the artifacts of a run."""
    if root := local_folder(run):
        for folder, _, _ in os.walk(root):
            unfinished.sweep(Path(folder))


def has_artifact(run_id: str, path: str) -> bool:
    """Return whether a run has the file `path`."""
    parent = str(Path(path).parent)
    return path in names(run_id, "" if parent == "." else parent)


def check_space(run: Run, *, total: int, largest: int) -> None:
    """Raise `Refusal` if `total` bytes of artifacts, with files of up to `largest` bytes, do not fit on the disk."""
    if folder := local_folder(run):
        disk_space.check_space(folder, total=total, largest=largest)
