"""The database of a study, in which several processes find their next trial and never the same."""

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

BEAT, SILENCE = 10, 90  # seconds between signs of life of a trial, and without one until it counts as lost
RETRIES = 3  # of a trial whose process was lost
WAIT = 60  # seconds for the database of others


class AllTaken(Exception):
    """No trial is left to begin."""


def _limited(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*words: Any, **named: Any) -> Any:
        return limited(method, *words, **named)

    return call


def _with_time_limits(storage: "type[TicketStorage]") -> "type[TicketStorage]":
    """No question to the database can hold the process for ever."""
    for name in (*BaseStorage.__abstractmethods__, "record_heartbeat", "_get_stale_trial_ids"):
        setattr(storage, name, _limited(getattr(storage, name)))
    return storage


@_with_time_limits
class TicketStorage(RDBStorage):
    """Trials are put into it beforehand, as tickets: asked for one where none waits, it raises `AllTaken`.

    Otherwise two processes that both see one trial missing would both make it. Optuna's cache of a storage asks for new
    trials by a method of its own, not by the public one; `_guarded` sees whether it still does.
    """

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        if template_trial is None:
            raise AllTaken
        return super()._create_new_trial(study_id, template_trial)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Errors and typed parameters, without passwords."""
        super().set_study_user_attr(study_id, key, masked_values(value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As above."""
        super().set_trial_user_attr(trial_id, key, masked_values(value))


def address_of(text: str) -> URL:
    """The database that `storage` names; empty = a file beside the tracking store. `Refusal` for what is none."""
    learn(text)
    try:
        url = make_url(text) if text else URL.create("sqlite", database=str(tracking.beside_store("optuna.db")))
    except SQLAlchemyError:
        raise Refusal(f"storage={text!r}", STORAGES, "leave storage out for a file beside the tracking store") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_absolute():
        url = url.set(database=str(places.caller_folder() / url.database))
    return url


def shown(url: URL) -> str:
    """An address without its password."""
    return masked(url.render_as_string(hide_password=False))


def _guarded(storage: TicketStorage) -> TicketStorage:
    """`Refusal` where this Optuna does not ask a storage for new trials as the one does that studies were made for."""
    with suppress(Exception):  # whatever another version says to that, or misses
        try:
            optuna.storages.get_storage(storage).create_new_trial(-1)  # no study has this number
        except AllTaken:
            return storage
    got = f"Optuna {optuna.__version__} (it makes trials in another way)"
    raise Refusal(got, "Optuna 5.0", "pip install -c constraints.txt optuna")


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
        reason = headline(error.__cause__ or error)
        remedy = "mend the address, or start the database; leave storage out for a file beside the tracking store"
        raise Refusal(f"storage={shown(url)} ({reason})", STORAGES, remedy) from None
    if lite:
        event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return _guarded(storage)


@contextmanager
def lasting(study: str) -> Iterator[None]:
    """Turn a database's failure in the midst of a study into one message."""
    try:
        yield
    except (StorageInternalError, *tracking.StoreError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        got = f"the study's database or the tracking store failed: {headline(cause)}"
        raise NfaError(f"{got}\n  do: mend it, then continue with study_name={study}") from cause


def retry_callback() -> RetryHeartbeatStaleTrialCallback:
    """Puts a lost trial back among those that wait, with its parameters, its run and what it has reported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RetryHeartbeatStaleTrialCallback(max_retry=RETRIES, inherit_intermediate_values=True)


def quiet() -> None:
    """Optuna says nothing: what there is to say, a study says itself."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
