"""Metric series straight from the tables of MLflow's SQL store, in two queries for up to `MOST` runs.

MLflow has no call that returns several series. Its tables are its own and may change, so they are read only where the
store is exactly MLflow's class and its tables have exactly the columns known here; everywhere else `read` returns None.
"""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from mlflow.exceptions import MlflowException

from nfa.bookkeeping import MACHINE, is_asked
from nfa.registry.tracking.calls import limited
from nfa.registry.tracking.guarded_client import telling_no_password
from nfa.registry.tracking.store import client

STORE = ("mlflow.store.tracking.sqlalchemy_store", "SqlAlchemyStore")  # a plugin or a subclass may hide or change rows
COLUMNS = {"key", "value", "timestamp", "step", "is_nan", "run_uuid"}  # of both tables
MOST = 500  # runs, and keys, in one query: SQLite takes 999 variables, SQL Server 2,100
NAN = float("nan")

Runs = dict[str, dict[str, dict[int, float]]]  # run id → key → step → value


def is_sql() -> bool:
    """Return whether the store is MLflow's own SQL store."""
    return _store() is not None


def read(run_ids: Sequence[str], among: Collection[str]) -> Runs | None:
    """Return the series of runs, all or those `among` some keys, as MLflow would return them key by key.

    None if the tables cannot be read here, or if a run does not exist.
    """
    store = _store()
    try:
        with telling_no_password():
            return None if store is None else limited(_read, store, run_ids, among)
    except (MlflowException, sa.exc.SQLAlchemyError, ImportError, AttributeError, LookupError):
        return None


def _store() -> Any:
    store = getattr(client(), "store", None)
    return store if (type(store).__module__, type(store).__name__) == STORE else None


def _read(store: Any, run_ids: Sequence[str], among: Collection[str]) -> Runs:
    found: Runs = {}
    with store.ManagedSessionMaker() as session:
        for start in range(0, len(run_ids), MOST):
            found |= _of_some(session, run_ids[start : start + MOST], among)
    return found


def _of_some(session: Any, run_ids: Sequence[str], among: Collection[str]) -> Runs:
    runs, latest, metrics = _tables()
    found: Runs = {run_id: {} for run_id in run_ids}
    named = sa.select(runs.c.run_uuid, latest.c.key).outerjoin(latest, latest.c.run_uuid == runs.c.run_uuid)
    known = session.execute(named.where(runs.c.run_uuid.in_(run_ids))).all()
    if {run_id for run_id, _ in known} != set(run_ids):
        raise LookupError("no such run")
    for run_id, key in known:  # in the order in which MLflow lists a run's keys
        if key is not None and is_asked(key, among):
            found[run_id][key] = {}
    columns = (metrics.c.run_uuid, metrics.c.key, metrics.c.step, metrics.c.value, metrics.c.is_nan)
    rows = sa.select(*columns).where(metrics.c.run_uuid.in_(run_ids))
    if 0 < len(among) <= MOST:
        rows = rows.where(metrics.c.key.in_(list(among)))
    if not among:
        rows = rows.where(~metrics.c.key.startswith(MACHINE))
    # As MLflow orders a series: of several values at one step, the last is the one that counts.
    for run_id, key, step, value, is_nan in session.execute(
        rows.order_by(metrics.c.timestamp, metrics.c.step, metrics.c.value)
    ):
        if key in found[run_id]:
            found[run_id][key][step] = NAN if is_nan else value
    return found


def _tables() -> tuple[sa.Table, sa.Table, sa.Table]:
    """Return MLflow's tables of runs, of the keys of each run, and of all values."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlRun

    runs, latest, metrics = (one.__table__ for one in (SqlRun, SqlLatestMetric, SqlMetric))
    if "run_uuid" not in runs.c or {*latest.c.keys()} != COLUMNS or {*metrics.c.keys()} != COLUMNS:
        raise LookupError("other columns")
    return runs, latest, metrics
