"""A look at all that a round has left, beside what undisturbed commands leave."""

from collections.abc import Callable, Sequence

from benchmarks.chaos import files
from benchmarks.chaos.database import StoredRun
from benchmarks.chaos.rounds import Bench, Round
from benchmarks.chaos.seen import Clean, Content

Play = Callable[[Round], None]


def undisturbed(bench: Bench, play: Play) -> Clean:
    """What commands leave that nothing disturbs; `RuntimeError` where even then something is wrong."""
    here = Round(bench, f"undisturbed {play.__name__}")
    try:
        play(here)
        if not here.seen.good:
            raise RuntimeError(f"{play.__name__}: {here.seen.faults}")
        runs = {run.name: _content(here, run) for run in here.runs()}
        said = [process.output.count("\n") for process in here.processes if process.name != "mlflow"]
        return Clean(runs, tree(here), said[0])
    finally:
        here.close()


def judge(here: Round, *, once: bool) -> None:
    """Note all that should not be there, and what should be and is not; with `once`, a run that is there twice."""
    runs = here.runs()  # also lets SQLite take back what a killed process has begun, in a file of its own
    look_for_litter(here)
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
        differing = [path for path in content.weights if found.weights.get(path) != content.weights[path]]
        if differing:
            here.fault(f"{name} has other weights than an undisturbed run at {len(differing)} of its checkpoints")
        missing, more = set(content.series) - set(found.series), set(found.series) - set(content.series)
        if missing or more:
            here.fault(f"{name} lacks {len(missing)} rows of an undisturbed run and has {len(more)} others")


def tree(here: Round) -> set[str]:
    """All files that commands have left where they were typed or beside it, in TMPDIR, in the cache and at home."""
    return {
        *(f"work/{path}" for path in files.tree(here.work)),
        *(f"beside/{path.name}" for path in here.work.parent.iterdir() if path != here.work),
        *(f"{folder.name}/{path}" for folder in (here.tmp, here.cache, here.home) for path in files.tree(folder)),
    }


def look_for_litter(here: Round) -> None:
    """Note files that undisturbed commands do not leave, files that are cut off, and processes."""
    here.seen.litter += sorted(tree(here) - set(here.clean.tree))
    for folder in (here.work, here.tmp, here.cache, here.home):
        here.seen.litter += [f"half of {folder.name}/{path}" for path in files.half_files(folder)]
    for process in here.processes:
        if process.ended and not process.alone(seconds=3):
            here.seen.litter.append(f"a process of {process.name}")
