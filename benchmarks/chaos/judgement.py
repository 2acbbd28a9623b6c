"""A look at all that a round has left, beside what undisturbed commands leave."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from threading import Lock

from benchmarks.chaos import files
from benchmarks.chaos.database import StoredRun
from benchmarks.chaos.rounds import FOLDERS, Bench, Round
from benchmarks.chaos.seen import Clean, Content

Play = Callable[[Round], None]


class Undisturbed:
    """What commands leave that nothing disturbs; each is played once, whoever asks."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._known: dict[Play, Clean] = {}
        self._locks: dict[Play, Lock] = defaultdict(Lock)

    def of(self, play: Play) -> Clean:
        """`RuntimeError` where even then something is wrong."""
        with self._locks[play]:
            if play not in self._known:
                self._known[play] = self._played(play)
        return self._known[play]

    def _played(self, play: Play) -> Clean:
        name = f"clean-{play.__module__.rpartition('.')[2]}-{play.__name__}"
        here = Round(self.bench, name)
        try:
            play(here)
            if not here.seen.good:
                raise RuntimeError(f"{name}: {here.seen.faults}")
            runs = {run.name: _content(here, run) for run in here.runs()}
            said = [process.output.count("\n") for process in here.processes if process.name != "mlflow"]
            return Clean(runs, tree(here), said[0])
        finally:
            here.close()


def judge(here: Round, *, once: bool) -> None:
    """Note all that should not be there, and what should be and is not; with `once`, a run that is there twice."""
    look_for_litter(here)
    runs = here.runs()
    here.seen.duplicates += here.store().twice() if runs else []
    here.seen.leaks += [*files.leaks(here.folder), *(here.database.leaks() if here.database else [])]
    for run in runs:
        if run.at_work:
            here.fault(f"run {run.name} is left saying {run.status}, {run.state}")
    for name, content in here.clean.runs.items():
        own = [run for run in runs if run.name == name]
        if once and len(own) > 1:
            here.fault(f"{name} has {len(own)} runs")
        _compare(here, name, content, [_content(here, run) for run in own if run.finished])


def _content(here: Round, run: StoredRun) -> Content:
    return Content(files.weights(here.artifacts(run)), here.store().series(run.run_id))


def _compare(here: Round, name: str, content: Content, finished: Sequence[Content]) -> None:
    if not finished:
        here.fault(f"{name} is lost: no run of it is finished")
    if content.weights:
        here.seen.trained += max(1, len(finished))
        here.seen.equal += sum(found.weights == content.weights for found in finished)
    for found in finished:
        missing, more = set(content.series) - set(found.series), set(found.series) - set(content.series)
        if missing or more:
            here.fault(f"{name} lacks {len(missing)} rows of an undisturbed run and has {len(more)} others")


def tree(here: Round) -> set[str]:
    """All files that commands have left."""
    return {f"{name}/{path}" for name in FOLDERS for path in files.tree(here.folder / name)}


def look_for_litter(here: Round) -> None:
    """Note files that undisturbed commands do not leave, files that are cut off, and processes."""
    here.seen.litter += sorted(tree(here) - set(here.clean.tree))
    for name in FOLDERS:
        here.seen.litter += [f"half of {name}/{path}" for path in files.half_files(here.folder / name)]
    for process in here.processes:
        if process.ended and not process.alone(seconds=3):
            here.seen.litter.append(f"a process of {process.name}")
