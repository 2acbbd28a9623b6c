"""Metric series, written in batches and without duplicates, and read in as few requests as the store allows."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

from mlflow.entities import Metric, Run, RunTag

from nfa.bookkeeping import is_asked
from nfa.errors import Refusal
from nfa.registry.signals import shielded
from nfa.registry.tracking import series_file, sql_series
from nfa.registry.tracking.series_file import LoggedRows
from nfa.registry.tracking.store import StoreError, client
from nfa.sinks.values import loggable

FLUSH_SECONDS = 2.0
BATCH = 1000  # metrics per call of log_batch
FEW = 3  # keys that are read one by one sooner than the file of all of them
Row = tuple[str, float, int, int, str | None]  # key, value, step, time, id of the LoggedModel


class MetricLog:
    """Buffers the metrics of one run; a (key, step) that the run already has is not overwritten.

    `check()` is called before each write.
    """

    def __init__(self, run_id: str, known: LoggedRows, check: Callable[[], None] = lambda: None) -> None:
        self.run_id, self._rows, self._check = run_id, known, check
        self._waiting: list[Metric] = []
        self._flushed = time.monotonic()

    def log(self, values: Mapping[str, float], step: int, model_id: str | None = None) -> None:
        """Add values at a step; raise ValueError for a value that is not finite, or a key that MLflow refuses."""
        now = int(time.time() * 1000)
        for key, value in loggable(values, step).items():
            if self._rows.add(key, step, value, now):
                self._waiting.append(Metric(key, value, now, step, model_id=model_id))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def waiting(self) -> list[Row]:
        """Return the rows that have not been written yet."""
        return [(one.key, one.value, one.step, one.timestamp, one.model_id) for one in self._waiting]

    def take_up(self, rows: Iterable[Row]) -> None:
        """Add rows that another process could not write, unless the run has them by now."""
        for key, value, step, timestamp, model_id in rows:
            if self._rows.add(key, step, value, timestamp):
                self._waiting.append(Metric(key, value, timestamp, step, model_id=model_id))

    def flush(self) -> None:
        """Write all buffered rows."""
        with shielded():
            if self._waiting:
                self._check()
            # What is added at an earlier step changes no last row, so an earlier file must not count any more.
            outdated = [RunTag(series_file.ROWS, "0")] if self._rows.filled_in else []
            while self._waiting:
                client().log_batch(self.run_id, metrics=self._waiting[:BATCH], tags=outdated)
                del self._waiting[:BATCH]
        self._flushed = time.monotonic()

    def checkpoint(self, run: Run) -> None:
        """Write all buffered rows; on a server, also store the run's series as a file, without which reading is slow.
        """
        self.flush()
        if not sql_series.is_sql():
            series_file.put(run, self._rows)

    def end(self, run: Run) -> None:
        """Write all buffered rows, and store the run's series as a file, which is a copy that nothing depends on."""
        self.flush()
        with suppress(Refusal, *StoreError):
            self._check()
            series_file.put(run, self._rows)


def metric_rows(run_id: str, key: str) -> list[Metric]:
    """Return every logged row of one series: value, step and time."""
    return list(client().get_metric_history(run_id, key))


def history(run_id: str, among: Collection[str] = ()) -> dict[str, dict[int, float]]:
    """Return the metric series of a run: key → step → value.

    Those `among` some keys or, if there are none, all but what MLflow samples of the machine.
    """
    return histories([run_id], among)[run_id]


def histories(run_ids: Iterable[str], among: Collection[str] = ()) -> dict[str, dict[str, dict[int, float]]]:
    """Return the metric series of several runs by run id, as `history` returns them."""
    ids, wanted = list(dict.fromkeys(run_ids)), frozenset(among)
    found = sql_series.read(ids, wanted)
    return {run_id: _requested(run_id, wanted) for run_id in ids} if found is None else found


def _requested(run_id: str, among: Collection[str]) -> dict[str, dict[int, float]]:
    """Read series from the run's file as far as it is up to date, and the others key by key."""
    run = client().get_run(run_id)
    keys = [key for key in run.data.metrics if is_asked(key, among)]
    known = series_file.stored(run, keys) if len(keys) > FEW else {}
    return {key: known.get(key) or _of_key(run_id, key) for key in keys}


def _of_key(run_id: str, key: str) -> dict[int, float]:
    return {item.step: item.value for item in metric_rows(run_id, key)}


def logged_rows(run_id: str) -> LoggedRows:
    """Return every row that a run has."""
    return series_file.rows_of(client().get_run(run_id), history(run_id))
