"""Relations × layers: what all figures that compare several analyses have in common."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nfa.figures.style import add_legend, epoch_axis, grid, site_label, style
from nfa.relations import RELATIONS

Value = TypeVar("Value")


def colours(count: int) -> list[Any]:
    """As many colours that can be told apart."""
    if count <= 10:
        return [colormaps["tab10"](index) for index in range(count)]
    return [colormaps["turbo"](index / (count - 1)) for index in range(count)]


def relation_grid(
    groups: Mapping[str, Mapping[str, Mapping[int, Value]]],
    sites: Sequence[str],
    relations: Sequence[str],
    draw: Callable[[Axes, str, Mapping[str, Mapping[int, Value]], str, Any], None],
    *,
    title: str = "",
    boundary: int | None = None,
    unit: str = "epoch",
) -> Figure:
    """A row for each relation, a column for each site; `groups` are series by label, each with a colour of its own.

    `draw(axes, label, series, key, colour)` puts a group's values of <site>/<relation> into that panel. A relation that
    no group has gets no row.
    """
    drawn = [name for name in relations if any(group.get(f"{s}/{name}") for group in groups.values() for s in sites)]
    figure, places = grid(max(1, len(drawn)), max(1, len(sites)))
    with style():
        for row, name in enumerate(drawn):
            for column, site in enumerate(sites):
                place = places[row][column]
                for (label, series), colour in zip(groups.items(), colours(len(groups)), strict=True):
                    draw(place, label, series, f"{site}/{name}", colour)
                place.set(ylim=RELATIONS[name].limits)
                epoch_axis(place, boundary, unit if row == len(drawn) - 1 else "")
                place.set(title=site_label(site) if row == 0 else "")
                place.set(ylabel=RELATIONS[name].label if column == 0 else "")
        add_legend(figure)
        figure.suptitle(title)
    return figure
