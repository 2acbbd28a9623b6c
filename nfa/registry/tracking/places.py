"""Locations of the tracking store and of the files of runs.

Folders may have any name, but MLflow treats paths as URLs: it decodes %, cuts at ? and #, and creates the folders of an
SQLite address literally. Here it gets addresses that it cannot misread.
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

ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"  # MLflow's default artifact root for new experiments
PSYCOPG = ("postgresql://", "postgresql+psycopg://")


def store_address() -> str:
    """Return MLflow's tracking URI, with % and ? in an SQLite path written so that MLflow creates no wrong folder.

    Raises:
        Refusal: no store can have this address here.
    """
    try:
        uri = mlflow.get_tracking_uri()
    except UnicodeEncodeError:
        raise _not_text(caller_folder()) from None
    if uri.startswith(PSYCOPG):
        check_extra("a tracking store in PostgreSQL", "postgresql")
    if not uri.startswith("sqlite:///") or not {"%", "?"} & set(uri):
        return uri
    address = uri.replace("sqlite:", "sqlite+pysqlite:", 1)  # the same driver, for which MLflow makes no folders
    file = sqlite_file(address)
    if "/" in uri.partition("?")[2] or (file and not file.parent.is_dir()):
        got = f"tracking store {uri} (no folder {file.parent})" if file else f"tracking store {uri}"
        remedy = "write % as %25 and ? as %3F, or change to that folder and unset MLFLOW_TRACKING_URI"
        raise Refusal(got, "the address of a file in an existing folder", remedy)
    return address


def sqlite_file(address: str) -> Path | None:
    """Return the file of an SQLite database; None for a database in memory and for all other addresses."""
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
    """Return the folder in which the command was typed; `mlflow run` changes to another one."""
    return Path(os.environ.get("NFA_CALLER_DIR") or os.getcwd()).resolve()


@contextmanager
def rooted() -> Iterator[None]:
    """Let a store that is created in the block put new experiments into `mlruns` of the caller's folder."""
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
    """Return the run's artifact folder as MLflow reads its address; None if it is not on this machine.

    Raises `Refusal` if the folder would not be the run's own, so that its files would mix with others or lie elsewhere.
    """
    address = run.info.artifact_uri
    if urllib.parse.urlparse(address).scheme not in ("", "file"):
        return None
    folder = _read(address)
    if trouble := _trouble(run, folder):
        got = f"artifacts of run {run.info.run_id} at {address}, which MLflow reads as {folder} ({trouble})"
        remedy = "set MLFLOW_EXPERIMENT_NAME to a new name, or change to a folder without %, # and ? in its name"
        raise Refusal(got, "a folder for this run alone, inside that of its experiment", remedy)
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
    # Up to version 0.6, files were stored where MLflow reads; those runs stay readable and can have children.
    kept = whole / run.data.tags.get("mlflow.parentRunId", run.info.run_id)
    if not address.startswith("file:") and urllib.parse.unquote(address) != address and not kept.exists():
        return "its % decoded"
    return ""


def _not_text(folder: Path) -> Refusal:
    got = f"folder {os.fsencode(folder)!r}"
    return Refusal(got, "a folder whose name is valid UTF-8", "rename it, or change to another folder")


def _read(address: str) -> Path:
    return Path(local_file_uri_to_path(address))


@cache
def _location(store: str, experiment: str) -> str:
    return str(GuardedClient(store).get_experiment(experiment).artifact_location)
