"""The series of a run as one artifact: through a tracking server, one request instead of one for every key.

`series.npz` holds, for each of its `keys`, the number of its rows (`counts`) and the time of its last step (`times`, in
ms), and for each row, one key after another, `steps` and `values`. Other programs may log to the run as well, and a
killed process may have logged more than its file holds. So a key is read from the file only where its last row is the
one that the store has.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from mlflow.entities import Metric, Run, RunTag

from nfa import content
from nfa.errors import Refusal
from nfa.registry.signals import shielded
from nfa.registry.tracking import artifacts
from nfa.registry.tracking.artifacts import SERIES
from nfa.registry.tracking.store import StoreError, client

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = "nfa.series_rows"  # tag: the number of rows in the file
NAMES = ("keys", "counts", "times", "steps", "values")
EMPTY = {name: np.array([]) for name in NAMES}


@dataclass
class LoggedRows:
    """The rows of a run, one for a key and step; `last` has the step and time of each key's row at its last step.

    Only its `own` keys, to which nfa has logged, go into the file: another program may log to the others at any step.
    `filled_in` tells whether a row was added at an earlier step than one before it, which no last row shows.
    """

    values: dict[str, dict[int, float]] = field(default_factory=dict)
    last: dict[str, tuple[int, int]] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)
    filled_in: bool = False

    def add(self, key: str, step: int, value: float, time: int) -> bool:
        """Add a row and return True, unless there is one for this key and step."""
        of_key = self.values.setdefault(key, {})
        if step in of_key:
            return False
        of_key[step] = value
        self.own.add(key)
        if key not in self.last or step > self.last[key][0]:
            self.last[key] = (step, time)
        else:
            self.filled_in = True
        return True

    def arrays(self) -> "dict[str, NDArray[Any]]":
        """Return the content of the file."""
        keys = [key for key in self.values if key in self.own]
        series = [self.values[key] for key in keys]
        found = (
            keys,
            [len(of_key) for of_key in series],
            [self.last[key][1] for key in keys],
            [step for of_key in series for step in of_key],
            [value for of_key in series for value in of_key.values()],
        )
        return {name: np.array(part) for name, part in zip(NAMES, found, strict=True)}


def put(run: Run, rows: LoggedRows) -> None:
    """Store the rows, all of which the store has, and their number as a tag; no file if there are none."""
    if not rows.own:
        return
    arrays = rows.arrays()
    with shielded():
        artifacts.put_arrays(run, SERIES, arrays)
        client().log_batch(run.info.run_id, tags=[RunTag(ROWS, str(len(arrays["steps"])))])
    rows.filled_in = False


def stored(run: Run, keys: Collection[str]) -> dict[str, dict[int, float]]:
    """Return those of the keys' series that are in the run's file as the store has them; none if it is damaged."""
    latest = {metric.key: metric for metric in latest_of(run) if metric.key in keys}
    found = _series(_read(run))
    return {key: of_key for key, time, of_key in found if key in latest and _ends(of_key, time, latest[key])}


def rows_of(run: Run, series: dict[str, dict[int, float]]) -> LoggedRows:
    """Return the rows of a run with these series, to which more are to be added."""
    latest = {metric.key: (metric.step, metric.timestamp) for metric in latest_of(run)}
    return LoggedRows(series, latest, {key for key, _, _ in _series(_read(run))})


def latest_of(run: Run) -> list[Metric]:
    """Return the last row of each key of a run."""
    return list(getattr(run.data, "_metric_objs", []))


def _read(run: Run) -> "Mapping[str, NDArray[Any]]":
    """Return the content of a run's file; nothing if there is none, it is damaged, or it is not that of the tag."""
    rows = run.data.tags.get(ROWS, "0")
    if rows == "0":
        return EMPTY
    try:
        file = artifacts.file_of(run, SERIES)
        with artifacts.reading_of(run.info.run_id, SERIES):
            arrays: dict[str, NDArray[Any]] = content.of_sealed(content.read_arrays(file))
    except (Refusal, *StoreError):
        return EMPTY
    return arrays if str(len(arrays["steps"])) == rows else EMPTY


def _series(arrays: "Mapping[str, NDArray[Any]]") -> Iterator[tuple[str, int, dict[int, float]]]:
    keys, counts, times, steps, values = (arrays[name].tolist() for name in NAMES)
    rows = zip(steps, values, strict=True)
    for key, count, time in zip(keys, counts, times, strict=True):
        yield key, time, dict(islice(rows, count))


def _ends(of_key: dict[int, float], time: int, latest: Metric) -> bool:
    """Return whether the last row of a series is the one that the store has."""
    return (max(of_key), time, of_key.get(latest.step)) == (latest.step, latest.timestamp, latest.value)
