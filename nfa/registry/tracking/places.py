"""Where the tracking store and the files of runs lie.

A folder may have any name, but MLflow takes paths for URLs: it decodes the % in them, cuts them at ? and #, and makes
the folders of an SQLite address as they are spelled. It is given addresses here that it can only read right.
"""

import os
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import mlflow
from mlflow.entities import Run
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy.engine import make_url

from nfa.errors import Refusal
from nfa.extras import check_extra
from nfa.registry.tracking.guarded_client import GuardedClient

ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"  # where a store of MLflow's, not told otherwise, puts new experiments
PSYCOPG = ("postgresql://", "postgresql+psycopg://")


def store_address() -> str:
    """MLflow's tracking URI; that of an SQLite file with % or ? so spelled that MLflow makes no folder beside it.

    `Refusal` for an address that no store can have here.
    """
    try:
        uri = mlflow.get_tracking_uri()
    except UnicodeEncodeError:
        raise _not_text(caller_folder()) from None
    if uri.startswith(PSYCOPG):
        check_extra("a tracking store in PostgreSQL", "postgresql")
    if not uri.startswith("sqlite:///") or not {"%", "?"} & set(uri):
        return uri
    address = uri.replace("sqlite:", "sqlite+pysqlite:", 1)  # the same driver, named: MLflow leaves its folders alone
    file = sqlite_file(address)
    if "/" in uri.partition("?")[2] or (file and not file.parent.is_dir()):
        got = f"tracking store {uri} (no folder {file.parent})" if file else f"tracking store {uri}"
        remedy = "write % as %25 and ? as %3F, or go to that folder and leave MLFLOW_TRACKING_URI out"
        raise Refusal(got, "the address of a file in a folder that is there", remedy)
    return address


def sqlite_file(address: str) -> Path | None:
    """The file of an SQLite database; None for one in memory and for everything else."""
    if not address.startswith("sqlite"):
        return None
    url = make_url(address)
    name = url.database or ""
    if name.startswith("file:"):
        name = urllib.parse.unquote(name.removeprefix("file:"))
    if name in ("", ":memory:") or url.query.get("mode") == "memory":
        return None
    return Path(name).resolve()


def caller_folder() -> Path:
    """Where the command was typed, which `mlflow run` leaves."""
    return Path(os.environ.get("NFA_CALLER_DIR") or os.getcwd()).resolve()


@contextmanager
def rooted() -> Iterator[None]:
    """A store that is made meanwhile puts new experiments into `mlruns` of the caller's folder, whatever its name."""
    root = caller_folder() / "mlruns"
    address = root.as_uri()
    if _read(address) != root:
        raise _not_text(root.parent)
    known = os.environ.get(ROOT)
    os.environ[ROOT] = known or (str(root) if address == f"file://{root}" else address)
    try:
        yield
    finally:
        del os.environ[ROOT]
        if known:
            os.environ[ROOT] = known


def local_folder(run: Run) -> Path | None:
    """The run's artifact folder as MLflow finds it, where it is one on this machine.

    `Refusal` where that is not the run's own: its files would mix with others, or lie beside the folder of its store.
    """
    address = run.info.artifact_uri
    if urllib.parse.urlparse(address).scheme not in ("", "file"):
        return None
    folder = _read(address)
    if trouble := _trouble(run, folder):
        got = f"artifacts of run {run.info.run_id} at {address}, which MLflow reads as {folder} ({trouble})"
        remedy = "set MLFLOW_EXPERIMENT_NAME to a new name, or go to a folder without %, # and ? in its name"
        raise Refusal(got, "a folder of the run's own inside that of its experiment", remedy)
    return folder


def _trouble(run: Run, folder: Path) -> str:
    address = run.info.artifact_uri
    whole = _read(_location(store_address(), run.info.experiment_id))
    if address.startswith("file:") and {"#", "?"} & set(address):
        return "cut off at # or ?"
    if run.info.run_id not in folder.parts:
        return "without the run's id"
    if not folder.is_relative_to(whole):
        return f"outside of {whole}"
    # Up to version 0.6 files were stored where MLflow reads: those runs stay readable, and can have children.
    kept = whole / run.data.tags.get("mlflow.parentRunId", run.info.run_id)
    if not address.startswith("file:") and urllib.parse.unquote(address) != address and not kept.exists():
        return "its % decoded"
    return ""


def _not_text(folder: Path) -> Refusal:
    got = f"folder {os.fsencode(folder)!r}"
    return Refusal(got, "a folder whose name is text in UTF-8", "rename it, or go to another folder")


def _read(address: str) -> Path:
    return Path(local_file_uri_to_path(address))  # type: ignore[no-untyped-call]


@cache
def _location(store: str, experiment: str) -> str:
    return str(GuardedClient(store).get_experiment(experiment).artifact_location)
