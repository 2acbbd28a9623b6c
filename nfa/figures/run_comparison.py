"""Several analysed runs: relations × layers, one colour for each run."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nfa.figures.alignment_relations import band
from nfa.figures.relation_grid import relation_grid
from nfa.figures.training_analysis import Series, draw


def run_comparison(
    runs: Mapping[str, Mapping[str, Series]],
    sites: Sequence[str],
    relations: Sequence[str],
    *,
    title: str = "",
    boundary: int | None = None,
    unit: str = "epoch",
) -> Figure:
    """A row for each relation, a column for each site; `runs` are series by run name. What is absent is not drawn."""
    return relation_grid(runs, sites, relations, _line, title=title, boundary=boundary, unit=unit)


def _line(place: Axes, run: str, series: Mapping[str, Series], key: str, colour: Any) -> None:
    draw(place, series.get(key, {}), label=run, color=colour, marker="o", markersize=3)
    band(place, series, key, colour)
