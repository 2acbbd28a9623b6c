"""Metric series, written in batches and without duplicates."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping

from mlflow.entities import Metric

from nfa.registry.signals import shielded
from nfa.registry.tracking.store import client
from nfa.sinks.values import loggable

FLUSH_SECONDS = 2.0
BATCH = 1000  # metrics per call of log_batch
Row = tuple[str, float, int, int, str | None]  # key, value, step, time, id of the LoggedModel


class MetricLog:
    """Buffers the metrics of one run; a (key, step) that the run already has is not overwritten.

    `check()` is called before each write.
    """

    def __init__(self, run_id: str, known: set[tuple[str, int]], check: Callable[[], None] = lambda: None) -> None:
        self.run_id, self._known, self._check = run_id, known, check
        self._waiting: list[Metric] = []
        self._flushed = time.monotonic()

    def log(self, values: Mapping[str, float], step: int, model_id: str | None = None) -> None:
        """Add values at a step; raise ValueError for a value that is not finite, or a key that MLflow refuses."""
        now = int(time.time() * 1000)
        for key, value in loggable(values, step).items():
            if (key, step) not in self._known:
                self._known.add((key, step))
                self._waiting.append(Metric(key, value, now, step, model_id=model_id))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def waiting(self) -> list[Row]:
        """Return the rows that have not been written yet."""
        return [(one.key, one.value, one.step, one.timestamp, one.model_id) for one in self._waiting]

    def take_up(self, rows: Iterable[Row]) -> None:
        """Add rows that another process could not write, unless the run has them by now."""
        for key, value, step, timestamp, model_id in rows:
            if (key, step) not in self._known:
                self._known.add((key, step))
                self._waiting.append(Metric(key, value, timestamp, step, model_id=model_id))

    def flush(self) -> None:
        """Write all buffered rows."""
        with shielded():
            if self._waiting:
                self._check()
            while self._waiting:
                client().log_batch(self.run_id, metrics=self._waiting[:BATCH])
                del self._waiting[:BATCH]
        self._flushed = time.monotonic()


def metric_rows(run_id: str, key: str) -> list[Metric]:
    """Return every logged row of one series: value, step and time."""
    return list(client().get_metric_history(run_id, key))


def history(run_id: str, among: Collection[str] = ()) -> dict[str, dict[int, float]]:
    """Return the metric series of a run, all of them or those `among` some keys: key → step → value."""
    keys = [key for key in client().get_run(run_id).data.metrics if key in among or not among]
    return {key: {item.step: item.value for item in metric_rows(run_id, key)} for key in keys}


def histories(run_ids: Iterable[str], among: Collection[str] = ()) -> dict[str, dict[str, dict[int, float]]]:
    """Return the metric series of several runs by run id, as `history` returns them."""
    return {run_id: history(run_id, among) for run_id in run_ids}


def known_steps(run_id: str) -> set[tuple[str, int]]:
    """Return every (key, step) that a run has."""
    return {(key, step) for key, series in history(run_id).items() for step in series}
