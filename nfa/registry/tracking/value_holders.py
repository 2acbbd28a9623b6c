"""Which runs have logged the values of a run: itself, and its analyses."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlflow.entities import Run

from nfa.registry.tracking.naming_runs import SOURCES, below, is_analysis, named_runs

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
    without series stands for the runs that it compares.
    """
    named = named_runs(run_ids)
    nested = below(run for run in named if not is_analysis(run))
    found: dict[str, MeasuredRun] = {}
    for run in sorted(named, key=is_analysis):  # an analysed run that is named itself has more series
        for one in _analysed(run) if is_analysis(run) else _leaves(run, nested, run.data.tags.get(VARIANT, "")):
            found.setdefault(one.run.info.run_id, one)
    return list(found.values())


def _leaves(run: Run, nested: Below, variant: str) -> Iterator[MeasuredRun]:
    within = nested.get(run.info.run_id, ())
    children = [child for child in within if not is_analysis(child)]
    for child in children:
        own = child.data.tags.get(VARIANT, "")
        yield from _leaves(child, nested, variant if SEEDS in run.data.tags else own)
    if not children:
        analyses = [child for child in reversed(within) if is_analysis(child)]
        yield MeasuredRun(run, variant, (run, *analyses))


def _analysed(run: Run) -> list[MeasuredRun]:
    sources = run.data.tags[SOURCES].split(",")
    if len(sources) > 1:
        return [MeasuredRun(run, "", (run,))] if run.data.metrics else measured_runs(sources)
    (source,) = named_runs(sources)
    return [MeasuredRun(source, source.data.tags.get(VARIANT, ""), (run,))]
