"""The series of the three studies as CSV files: a row for each value; what is undefined has none.

`done` is the key of the series whose steps are finished ones; without it every step that has a value counts.
"""

from collections.abc import Iterator, Mapping, Sequence

from nfa.figures.gradient_series import LABELS
from nfa.figures.training_analysis import Series
from nfa.plain_text import csv_text

LOSSES = ("train/loss", "val/loss", "eval/loss", "probe/loss")
ALIGNMENT = ("site", "relation", "value", "standard_error")
DIRECTIONS = ("series", "value", "standard_error")


def alignment_csv(
    series: Mapping[str, Series], sites: Sequence[str], relations: Sequence[str], unit: str, done: str = ""
) -> str:
    """Content of `similarities.csv`, losses included."""
    return csv_text((unit, *ALIGNMENT), alignment_rows(series, sites, relations, done))


def alignment_rows(
    series: Mapping[str, Series], sites: Sequence[str], relations: Sequence[str], done: str = ""
) -> Iterator[tuple[int, str, str, float, float | str]]:
    """Its rows, by step; a chance level follows its value."""
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
    """Content of `gradient_directions.csv`; several runs have a first column with their names."""
    several = len(runs) > 1
    rows = ((name, *row) if several else row for name, series in runs.items() for row in _directions(series, done))
    return csv_text((*(("run",) if several else ()), unit, *DIRECTIONS), rows)


def _directions(series: Mapping[str, Series], done: str) -> Iterator[tuple[int, str, float, float | str]]:
    for step in _steps(series, tuple(LABELS), done):
        for key in LABELS:
            if step in series.get(key, {}):
                yield step, key, series[key][step], series.get(f"{key}_se", {}).get(step, "")


def _steps(series: Mapping[str, Series], keys: Sequence[str], done: str) -> list[int]:
    return sorted(series[done] if done else set().union(*(series.get(key, {}) for key in keys)))
