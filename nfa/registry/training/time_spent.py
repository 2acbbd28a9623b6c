"""timing.json and `nfa/seconds`: the time of a run, including earlier parts of a resumed run, and its children."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from nfa.bookkeeping import SECONDS
from nfa.registry import tracking
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun

FILE = "timing.json"
CHILDREN, TOTAL = "children", "total"  # beside the seconds of the run's own sections


@contextmanager
def timed(run: TrackedRun, clock: Stopwatch, *, family: bool = False) -> Iterator[None]:
    """Count on from what the run's file says, and keep it at the end of the block, however that comes.

    With `family`, what the files of the run's children say is added, in which `clock` has to stand still. A block that
    ends without an error also logs the total as a metric; earlier, a run may still be resumed and take longer.
    """
    if run.continued:
        clock.add({name: value for name, value in _file_of(run.run_id).items() if name not in (CHILDREN, TOTAL)})
    try:
        yield
    except BaseException as error:
        if not tracking.is_of_store(error):  # it would be waited for again
            with suppress(*tracking.StoreError):
                keep_time(run, clock, family=family)
        raise
    run.metrics.log({SECONDS: keep_time(run, clock, family=family)}, 0)


def keep_time(run: TrackedRun, clock: Stopwatch, *, family: bool = False) -> float:
    """Write the file as it is now, and return the total; a run that is killed without a word counts up to then."""
    content = {name: value for name, value in clock.split().items() if name != TOTAL}
    if family:
        below = tracking.children(run.run_id, run.info.info.experiment_id)
        content[CHILDREN] = round(sum(total_time(child.info.run_id) for child in below), 3)
    total = round(sum(content.values()), 3)
    tracking.put_json(run.info, FILE, {**content, TOTAL: total})
    return total


def total_time(run_id: str) -> float:
    """Return the seconds that a run took, including its children; 0 if it has no file."""
    return _file_of(run_id).get(TOTAL, 0.0)


def _file_of(run_id: str) -> Mapping[str, float]:
    return tracking.get_json(run_id, FILE) if tracking.has_artifact(run_id, FILE) else {}
