"""The tracking store: connection, experiments, and links into its UI."""

import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import cast

import requests
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from nfa.errors import Refusal, headline
from nfa.masking import masked, tellable
from nfa.registry.importing import uncollected
from nfa.registry.tracking import first_use, places
from nfa.registry.tracking.calls import beginning, limited
from nfa.registry.tracking.guarded_client import GuardedClient
from nfa.sinks.mlflow import children_link, run_link

RESOLVED = "resolved."  # before the name of a parameter whose value differs from what was typed
StoreError = (MlflowException, SQLAlchemyError, OSError)


def is_of_store(error: BaseException) -> bool:
    """Return whether an error, or its cause, comes from the store or a disk."""
    return isinstance(error, StoreError) or isinstance(error.__cause__, StoreError)


@cache
def _client(address: str) -> MlflowClient:
    """Connect to the store; raise `Refusal` if it cannot be reached."""
    if file := places.sqlite_file(address):
        file.parent.mkdir(parents=True, exist_ok=True)  # as MLflow does it
    logging.getLogger("mlflow.store.db.utils").disabled = True  # it prints tracebacks of errors that we report
    with uncollected(), reaching_store(), first_use.alone(address, first_use.MLFLOW), places.rooted():
        return cast(MlflowClient, GuardedClient(address))


def client() -> MlflowClient:
    """Return MLflow's client for the current tracking URI."""
    return _client(places.store_address())


def reach() -> None:
    """Raise `Refusal` if the store cannot be reached."""
    with reaching_store():
        client()


@contextmanager
def reaching_store() -> Iterator[None]:
    """Turn an error of the store into a `Refusal` that names the store."""
    uri = places.store_address()
    try:
        with beginning():
            if uri.startswith("http"):
                # MLflow itself would retry for minutes.
                limited(requests.get, f"{uri}/health", timeout=10)
            yield
    except StoreError as error:
        got, allowed = f"tracking store {uri} ({headline(error)})", "a reachable and writable store"
        remedy = "fix its permissions, disk space or address, or set MLFLOW_TRACKING_URI"
        raise Refusal(got, allowed, remedy) from tellable(error)


def current_experiment() -> str:
    """Return the experiment of MLFLOW_EXPERIMENT_ID or MLFLOW_EXPERIMENT_NAME (created if new), or MLflow's default."""
    if experiment := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return experiment
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    return experiment_named(name) if name else "0"


def experiment_named(name: str) -> str:
    """Return the experiment of that name; if it is new, the first of several processes creates it."""

    def find_or_make() -> str:
        found = client().get_experiment_by_name(name)
        return str(found.experiment_id if found else client().create_experiment(name))

    return first_use.again(find_or_make)


def beside_store(name: str) -> Path:
    """Return the path of a file beside the store's database, or in the caller's folder if the store is a server."""
    file = places.sqlite_file(places.store_address())
    return file.with_name(name) if file else places.caller_folder() / name


def plain_param(text: str) -> str:
    """Return a parameter as typed, from the shell-quoted text that `mlflow run` logs or the plain text that we log.

    >>> plain_param("'a b'"), plain_param("a b")
    ('a b', 'a b')
    """
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    return words[0] if len(words) == 1 else text


def parameters(run: Run) -> dict[str, str]:
    """Return a run's parameters as texts, the resolved ones where these differ from what was typed."""
    logged = {name: plain_param(text) for name, text in run.data.params.items() if not name.startswith("nfa.")}
    resolved = {name: text for name, text in logged.items() if name.startswith(RESOLVED)}
    return {**logged, **{name.removeprefix(RESOLVED): text for name, text in resolved.items()}}


def told_address() -> str:
    """Return the address of the store without a password."""
    return masked(places.store_address())


def link(run: Run) -> str:
    """Return how to open a run: its address on a server, or the command that starts the UI and the path in it."""
    return run_link(places.store_address(), run.info.experiment_id, run.info.run_id)


def link_to_children(run: Run) -> str:
    """Return how to compare the children of a run in charts, in the same way."""
    return children_link(places.store_address(), run.info.experiment_id, run.info.run_id)
