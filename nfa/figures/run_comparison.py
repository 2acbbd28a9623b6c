"""Several analysed runs: relations × layers, one colour for each run."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from nfa.figures.alignment_relations import band, limits
from nfa.figures.style import add_legend, epoch_axis, grid, relation_label, site_label, style
from nfa.figures.training_analysis import Series, draw


def colours(count: int) -> list[Any]:
    """As many colours that can be told apart."""
    if count <= 10:
        return [colormaps["tab10"](index) for index in range(count)]
    return [colormaps["turbo"](index / (count - 1)) for index in range(count)]


def run_comparison(
    runs: Mapping[str, Mapping[str, Series]],
    sites: Sequence[str],
    relations: Sequence[str],
    *,
    boundary: int | None = None,
) -> Figure:
    """A row for each relation, a column for each site; `runs` are series by run name. What is absent is not drawn."""
    drawn = [name for name in relations if any(of_run.get(f"{s}/{name}") for of_run in runs.values() for s in sites)]
    figure, places = grid(max(1, len(drawn)), max(1, len(sites)))
    with style():
        for row, name in enumerate(drawn):
            for column, site in enumerate(sites):
                place = places[row][column]
                for (run, series), colour in zip(runs.items(), colours(len(runs)), strict=True):
                    draw(place, series.get(f"{site}/{name}", {}), label=run, color=colour, marker="o", markersize=3)
                    band(place, series, f"{site}/{name}", colour)
                limits(place, name)
                epoch_axis(place, boundary)
                place.set(
                    title=site_label(site) if row == 0 else "",
                    ylabel=relation_label(name) if column == 0 else "",
                    xlabel="epoch" if row == len(drawn) - 1 else "",
                )
        add_legend(figure)
    return figure
