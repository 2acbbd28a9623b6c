"""CSV files of the series of the three studies: one row per value; an undefined value has no row."""

from collections.abc import Iterator, Mapping, Sequence

from nfa.figures.gradient_series import LABELS
from nfa.figures.training_analysis import Series
from nfa.plain_text import csv_text

LOSSES = ("train/loss", "val/loss", "eval/loss", "probe/loss")
ALIGNMENT = ("site", "relation", "value", "standard_error")
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
) -> Iterator[tuple[int, str, str, float, float | str]]:
    """Yield the rows of `similarities.csv` in the order of steps; a chance level follows its value.

    Args:
        series: Series by metric key.
        sites: The names of the sites.
        relations: The names of the relations.
        done: The key of a series whose steps are complete; without it every step that has a value counts.

    Yields:
        Step, site, relation, value and standard error; the last is empty where there is none.
    """
    keys = [f"{site}/{name}" for site in sites for name in relations]
    for step in _steps(series, (*LOSSES, *keys), done):
        for loss in LOSSES:
            if step in series.get(loss, {}):
                yield step, "", loss, series[loss][step], ""
        for site in sites:
            for name in relations:
                for found in (name, f"{name}_chance"):
                    key = f"{site}/{found}"
                    if step in series.get(key, {}):
                        yield step, site, found, series[key][step], series.get(f"{key}_se", {}).get(step, "")


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


def _directions(series: Mapping[str, Series], done: str) -> Iterator[tuple[object, ...]]:
    for step in _steps(series, tuple(LABELS), done):
        for key in LABELS:
            if step in series.get(key, {}):
                beside = (series.get(f"{key}_{name}", {}).get(step, "") for name in ("se", "chance", "chance_sd"))
                yield step, key, series[key][step], *beside


def _steps(series: Mapping[str, Series], keys: Sequence[str], done: str) -> list[int]:
    return sorted(series[done] if done else set().union(*(series.get(key, {}) for key in keys)))
