"""Which runs have logged the values of a run: itself, and its analyses."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mlflow.entities import Run

from nfa.console import stage
from nfa.registry.tracking.naming_runs import (
    PARENT,
    above,
    below,
    existing_runs,
    is_analysis,
    is_report,
    named_runs,
    sources_of,
)

VARIANT, SEEDS = "nfa.variant", "nfa.seeds"
Below = Mapping[str, Sequence[Run]]


@dataclass(frozen=True)
class MeasuredRun:
    """A run, what distinguishes it from others of its parent apart from the seed, and the runs that hold its values.

    A series is the one of the first of `holders` that has it.
    """

    run: Run
    variant: str
    holders: tuple[Run, ...]


def measured_runs(run_ids: str | Iterable[str]) -> list[MeasuredRun]:
    """Return the runs whose values are meant where `run_ids` are named; see `named_runs`.

    A parent stands for its descendants without children, each with its own series and those of its analyses, the
    newest analysis first. An analysis stands for its own series, which belong to the run that it analysed; a comparison
    without series stands for the runs that it compares, and a report for those that it reports.
    """
    return measured(named_runs(run_ids))


def measured(named: Sequence[Run]) -> list[MeasuredRun]:
    """Return the runs whose values are meant where these are named; see `measured_runs`."""
    plain = [run for run in named if not is_analysis(run)]
    nested, parents = below(plain), above(plain)
    found: dict[str, MeasuredRun] = {}
    for run in sorted(named, key=is_analysis):  # an analysed run that is named itself has more series
        parent = parents.get(run.data.tags.get(PARENT, ""))
        for one in _analysed(run) if is_analysis(run) else _leaves(run, nested, parent):
            run_id = one.run.info.run_id
            found[run_id] = _with(found[run_id], one.holders) if run_id in found else one
    return list(found.values())


def _with(one: MeasuredRun, more: Sequence[Run]) -> MeasuredRun:
    """Return a run with more holders of its values: the run itself is the first, then the newest analysis."""
    every = {holder.info.run_id: holder for holder in (*one.holders, *more)}
    order = sorted(every.values(), key=lambda holder: (is_analysis(holder), -holder.info.start_time))
    return replace(one, holders=tuple(order))


def _leaves(run: Run, nested: Below, parent: Run | None) -> Iterator[MeasuredRun]:
    within = nested.get(run.info.run_id, ())
    children = [child for child in within if not is_analysis(child)]
    for child in children:
        yield from _leaves(child, nested, run)
    if not children:
        analyses = [child for child in reversed(within) if is_analysis(child)]
        yield MeasuredRun(run, _variant(run, parent), (run, *analyses))


def _variant(run: Run, parent: Run | None) -> str:
    """Return the variant of a run, or that of its parent if the runs of this one differ only in their seed."""
    tagged = parent if parent and SEEDS in parent.data.tags else run
    return str(tagged.data.tags.get(VARIANT, ""))


def _analysed(run: Run) -> list[MeasuredRun]:
    sources = sources_of(run)
    if is_report(run):
        return measured(existing_runs(sources))
    if len(sources) > 1 and run.data.metrics:
        return [MeasuredRun(run, "", (run,))]
    found = existing_runs(sources)
    if gone := [source for source in sources if source not in {one.info.run_id for one in found}]:
        stage("notice", f"{run.info.run_name} is about runs that are not in the store any more: {', '.join(gone)}")
    if len(sources) > 1:
        return measured(found)
    if not found:
        return [MeasuredRun(run, "", (run,))]
    (source,) = found
    parent = above([source]).get(source.data.tags.get(PARENT, ""))
    return [MeasuredRun(source, _variant(source, parent), (run,))]
