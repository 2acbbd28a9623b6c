"""CSV files of the series of the three studies: one row per value; an undefined value has no row."""

from collections.abc import Iterator, Mapping, Sequence

from nfa.figures.gradient_series import LABELS
from nfa.figures.training_analysis import Series
from nfa.levels import Beside, at_step, beside
from nfa.plain_text import csv_text

LOSSES = ("train/loss", "val/loss", "eval/loss", "probe/loss")
ALIGNMENT = ("site", "relation", "value", *Beside._fields)
DIRECTIONS = ("series", "value", "standard_error", "chance", "chance_sd")


def alignment_csv(
    series: Mapping[str, Series], sites: Sequence[str], relations: Sequence[str], unit: str, done: str = ""
) -> str:
    """Return the content of `similarities.csv`, including the losses.

    Args:
        series: Series by metric key.
        sites: The names of the sites.
        relations: The names of the relations.
        unit: The name of the first column, "epoch" or "step".
        done: The key of a series whose steps are complete; without it every step that has a value counts.

    Returns:
        The text of the file, without its last newline.
    """
    return csv_text((unit, *ALIGNMENT), alignment_rows(series, sites, relations, done))


def alignment_rows(
    series: Mapping[str, Series], sites: Sequence[str], relations: Sequence[str], done: str = ""
) -> Iterator[tuple[int | str | float, ...]]:
    """Yield the rows of `similarities.csv` in the order of steps.

    Args:
        series: Series by metric key.
        sites: The names of the sites.
        relations: The names of the relations.
        done: The key of a series whose steps are complete; without it every step that has a value counts.

    Yields:
        Step, site, relation, value and what stands beside it; the cell of what is absent is empty.
    """
    keys = [f"{site}/{name}" for site in sites for name in relations]
    for step in _steps(series, (*LOSSES, *keys), done):
        values = at_step(series, step)
        named = [("", loss, loss) for loss in LOSSES]
        named += [(site, name, f"{site}/{name}") for site in sites for name in relations]
        for site, name, key in named:
            if key in values:
                yield step, site, name, values[key], *_cells(*beside(values, key))


def _cells(*values: float | None) -> Iterator[float | str]:
    return ("" if value is None else value for value in values)


def directions_csv(runs: Mapping[str, Mapping[str, Series]], unit: str, done: str = "") -> str:
    """Return the content of `gradient_directions.csv`.

    Args:
        runs: Series by metric key, by run name; for several runs the names make a first column.
        unit: The name of the step column, "epoch" or "step".
        done: The key of a series whose steps are complete; without it every step that has a value counts.

    Returns:
        The text of the file, without its last newline.
    """
    several = len(runs) > 1
    rows = ((name, *row) if several else row for name, series in runs.items() for row in _directions(series, done))
    return csv_text((*(("run",) if several else ()), unit, *DIRECTIONS), rows)


def _directions(series: Mapping[str, Series], done: str) -> Iterator[tuple[int | str | float, ...]]:
    for step in _steps(series, tuple(LABELS), done):
        values = at_step(series, step)
        for key in LABELS:
            if key in values:
                by = beside(values, key)
                yield step, key, values[key], *_cells(by.standard_error, by.chance, by.chance_sd)


def _steps(series: Mapping[str, Series], keys: Sequence[str], done: str) -> list[int]:
    return sorted(series[done] if done else set().union(*(series.get(key, {}) for key in keys)))
