"""The database of a study, in which several processes find their next trial and never the same."""

import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from nfa import tracking
from nfa.config.tune import STORAGES
from nfa.errors import Refusal
from nfa.tracking import first_use

BEAT, SILENCE = 10, 90  # seconds between signs of life of a trial, and without one until it counts as lost
RETRIES = 3  # of a trial whose process was lost
WAIT = 60  # seconds for the database of others


class AllTaken(Exception):
    """No trial is left to begin."""


class TicketStorage(RDBStorage):
    """Trials are put into it beforehand, as tickets: asked for one where none waits, it raises `AllTaken`.

    Otherwise two processes that both see one trial missing would both make it.
    """

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        if template_trial is None:
            raise AllTaken
        return super()._create_new_trial(study_id, template_trial)


def address_of(text: str) -> URL:
    """The database that `storage` names; empty = a file beside the tracking store. `Refusal` for what is none."""
    try:
        url = make_url(text) if text else URL.create("sqlite", database=str(tracking.beside_store("optuna.db")))
    except SQLAlchemyError:
        raise Refusal(f"storage={text!r}", STORAGES, "leave storage out for a file beside the tracking store") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_absolute():
        url = url.set(database=str(Path(url.database).resolve()))
    return url


def shown(url: URL) -> str:
    """An address without its password."""
    return url.render_as_string(hide_password=True)


def open_storage(url: URL) -> TicketStorage:
    """The storage at an address, its tables made where they are missing; `Refusal` where it cannot be reached."""
    lite = url.get_backend_name() == "sqlite"
    # Several writers: SQLite's transactions begin as writing ones (below), so what was read is still so when written.
    connect: dict[str, Any] = {"timeout": WAIT, "isolation_level": None} if lite else {"connect_timeout": 10}
    address = url.render_as_string(hide_password=False)
    quiet()
    try:
        with warnings.catch_warnings(), first_use.alone(address, first_use.OPTUNA):
            warnings.simplefilter("ignore", ExperimentalWarning)
            storage = TicketStorage(
                address,
                engine_kwargs={"connect_args": connect, **({} if lite else {"pool_pre_ping": True})},
                heartbeat_interval=BEAT,
                grace_period=SILENCE,
                heartbeat_stale_trial_callback=retry_callback(),
            )
    except (SQLAlchemyError, ImportError, OptunaError, RuntimeError, OSError) as error:
        reason = next(iter(str(error.__cause__ or error).strip().splitlines()), type(error).__name__)
        remedy = "mend the address, or start the database; leave storage out for a file beside the tracking store"
        raise Refusal(f"storage={shown(url)} ({reason})", STORAGES, remedy) from None
    if lite:
        event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return storage


def retry_callback() -> RetryHeartbeatStaleTrialCallback:
    """Puts a lost trial back among those that wait, with its parameters, its run and what it has reported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RetryHeartbeatStaleTrialCallback(max_retry=RETRIES, inherit_intermediate_values=True)


def quiet() -> None:
    """Optuna says nothing: what there is to say, a study says itself."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
