"""Create a database's tables and shared rows exactly once, even if several processes start at the same time."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from mlflow.exceptions import MlflowException
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from nfa.console import stage
from nfa.errors import Refusal
from nfa.masking import masked
from nfa.registry.signals import exposed
from nfa.registry.tracking.calls import LIMIT, beginning, limited
from nfa.registry.tracking.places import sqlite_file

Made = TypeVar("Made")

# Each query succeeds only after all tables exist, because it reads what is created last.
MLFLOW = "SELECT 1 FROM experiments WHERE experiment_id = 0"
OPTUNA = "SELECT 1 FROM version_info, alembic_version"
OTHERS = {MLFLOW: (OPTUNA, "studies of Optuna"), OPTUNA: (MLFLOW, "a tracking store")}
ANY = "SELECT 1 FROM sqlite_master"

MOMENT, POLL = 1.0, 0.05  # seconds of waiting before it is printed, and between two tries
_KEY = int.from_bytes(b"nfa made")  # of the lock in PostgreSQL


@contextmanager
def alone(address: str, last: str) -> Iterator[None]:
    """Hold a lock while the tables of a database are created; no lock is taken if the query `last` finds them.

    For SQLite it is a lock on the folder of the file, which leaves nothing behind and has no effect on file systems
    that cannot lock folders; for PostgreSQL it is an advisory lock. A server behind http creates its tables itself.
    """
    file = sqlite_file(address)
    with ExitStack() as held:
        if file or address.startswith("postgresql"):
            connection = held.enter_context(_connected(address, {"timeout": 0} if file else {"connect_timeout": 10}))
            _check_no_other(connection, last)
            if not _finds(connection, last):
                take = _folder_lock(held.enter_context(_opened(file.parent))) if file else _database_lock(connection)
                _wait(take, address)
                held.enter_context(beginning(LIMIT))  # creating tables takes seconds, on a busy machine minutes
                if file and _finds(connection, ANY) and not _finds(connection, last):
                    held.enter_context(_half_made(file))
        yield


def again(make: Callable[..., Made], *words: Any) -> Made:
    """Return `make(*words)`; call it again if another process has created the same thing at the same moment."""
    for _ in range(2):
        with suppress(MlflowException):
            return make(*words)
    return make(*words)


def _check_no_other(connection: Connection, last: str) -> None:
    other, named = OTHERS[last]
    if _finds(connection, other):
        got = f"database {masked(connection.engine.url.render_as_string(False))}, which holds {named}"
        remedy = "name another database (in PostgreSQL: CREATE DATABASE studies)"
        raise Refusal(got, "separate databases for runs and for studies, because their version tables clash", remedy)


@contextmanager
def _half_made(file: Path) -> Iterator[None]:
    """Refuse an SQLite file whose tables are incomplete, because a process was killed while it created them."""
    try:
        yield
    except SQLAlchemyError as error:
        got = f"{file}, whose tables are incomplete ({str(error).splitlines()[0]})"
        remedy = "delete the file if it holds none of your data, or name another one"
        raise Refusal(got, "a database with all tables, or without any", remedy) from error


@contextmanager
def _connected(address: str, patience: dict[str, int]) -> Iterator[Connection]:
    engine = create_engine(address, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=patience)
    connection = limited(engine.connect)
    try:
        yield connection
    finally:
        limited(connection.close)


def _finds(connection: Connection, query: str) -> bool:
    try:
        return limited(lambda: connection.execute(text(query)).first()) is not None
    except SQLAlchemyError:  # no such table, or it is just being created
        return False


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _folder_lock(descriptor: int) -> Callable[[], bool]:
    def take() -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # NFS cannot lock folders
            return True
        return True

    return take


def _database_lock(connection: Connection) -> Callable[[], bool]:
    query = text("SELECT pg_try_advisory_lock(:key)")
    return lambda: bool(limited(connection.execute, query, {"key": _KEY}).scalar_one())


def _wait(take: Callable[[], bool], address: str) -> None:
    began, said = time.monotonic(), False
    while not take():
        if not said and time.monotonic() - began > MOMENT:
            stage("waiting", f"for another process, which is creating the tables of {make_url(address)!r}")
            said = True
        with exposed():
            time.sleep(POLL)
