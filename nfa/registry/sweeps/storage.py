"""The database of a study, from which several processes take trials, each trial once."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from nfa.errors import NfaError, Refusal, headline
from nfa.masking import learn, masked, masked_values
from nfa.registry import tracking
from nfa.registry.sweeps.config import STORAGES
from nfa.registry.tracking import first_use, places
from nfa.registry.tracking.calls import limited

BEAT, SILENCE = 10, 90  # seconds between heartbeats of a trial, and seconds without one until it counts as lost
RETRIES = 3  # most retries of a trial whose process was lost
WAIT = 60  # seconds to wait for a locked database


class AllTaken(Exception):
    """No trial is waiting."""


def _limited(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*words: Any, **named: Any) -> Any:
        return limited(method, *words, **named)

    return call


def _with_time_limits(storage: "type[TicketStorage]") -> "type[TicketStorage]":
    """Give every call to the database a time limit."""
    for name in (*BaseStorage.__abstractmethods__, "record_heartbeat", "_get_stale_trial_ids"):
        setattr(storage, name, _limited(getattr(storage, name)))
    return storage


@_with_time_limits
class TicketStorage(RDBStorage):
    """A storage that hands out trials enqueued in advance as tickets, and raises `AllTaken` if none is waiting.

    Otherwise two processes that both see one trial missing would both create it. Optuna's cached storage creates trials
    through a private method, not the public one; `_guarded` checks that this is still so.
    """

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        if template_trial is None:
            raise AllTaken
        return super()._create_new_trial(study_id, template_trial)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute of a study, with passwords masked."""
        super().set_study_user_attr(study_id, key, masked_values(value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of a trial, with passwords masked."""
        super().set_trial_user_attr(trial_id, key, masked_values(value))


def address_of(text: str) -> URL:
    """Return the address of the database that `storage` names; empty = a file beside the tracking store."""
    learn(text)
    try:
        url = make_url(text) if text else URL.create("sqlite", database=str(tracking.beside_store("optuna.db")))
    except SQLAlchemyError:
        remedy = "leave storage out to use a file beside the tracking store"
        raise Refusal(f"storage={text!r}", STORAGES, remedy) from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_absolute():
        url = url.set(database=str(places.caller_folder() / url.database))
    return url


def shown(url: URL) -> str:
    """Return an address without its password."""
    return masked(url.render_as_string(hide_password=False))


def _guarded(storage: TicketStorage) -> TicketStorage:
    """Raise `Refusal` if this version of Optuna does not create trials through `TicketStorage`."""
    with suppress(Exception):  # other versions may raise anything here
        try:
            optuna.storages.get_storage(storage).create_new_trial(-1)  # no study has this id
        except AllTaken:
            return storage
    got = f"Optuna {optuna.__version__} (it creates trials in a different way)"
    raise Refusal(got, "Optuna 5.0", "pip install -c constraints.txt optuna")


def open_storage(url: URL) -> TicketStorage:
    """Open the storage at an address and create missing tables; raise `Refusal` if it cannot be reached."""
    lite = url.get_backend_name() == "sqlite"
    # For several writers, SQLite's transactions begin with a write lock (below), so reads stay valid until the write.
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
        reason = headline(error.__cause__ or error)
        remedy = "correct the address, start the database, or leave storage out to use a file beside the tracking store"
        raise Refusal(f"storage={shown(url)} ({reason})", STORAGES, remedy) from None
    if lite:
        event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return _guarded(storage)


@contextmanager
def lasting(study: str) -> Iterator[None]:
    """Turn a failure of the database during a study into one message."""
    try:
        yield
    except (StorageInternalError, *tracking.StoreError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        got = f"the study's database or the tracking store failed: {headline(cause)}"
        raise NfaError(f"{got}\n  do: fix it, then continue with study_name={study}") from cause


def retry_callback() -> RetryHeartbeatStaleTrialCallback:
    """Return a callback that enqueues a lost trial again, with its parameters, run and reported values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RetryHeartbeatStaleTrialCallback(max_retry=RETRIES, inherit_intermediate_values=True)


def quiet() -> None:
    """Silence Optuna's own messages, because the study prints its own."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
