"""Relations × layers of several analyses: one line per run, or one per group of runs that differ only in their seed."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nfa.figures.bands import beside_curves, chance_band, within
from nfa.figures.notes import abbreviations, add_notes, missing_in, say_empty
from nfa.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    add_legend,
    add_title,
    epoch_axis,
    grid,
    site_label,
    style,
)
from nfa.figures.training_analysis import Series, between
from nfa.figures.training_analysis import draw as draw_series
from nfa.relations import RELATIONS, Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Group = Mapping[str, Series]
Draw = Callable[["Axes", str, Group, str, Any], None]
DISTINCT = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def colours(count: int) -> list[Any]:
    """Return so many distinct colours."""
    from matplotlib import colormaps

    if count <= len(DISTINCT):
        return list(DISTINCT[:count])
    return [colormaps["turbo"](index / (count - 1)) for index in range(count)]


def relation_grid(
    groups: Mapping[str, Group],
    sites: Sequence[str],
    relations: Sequence[str],
    draw: "Draw",
    *,
    title: str = "",
    boundary: int | None = None,
    unit: str = "epoch",
    note: str = "",
) -> "Figure":
    """Draw a row for each relation and a column for each site; each of the `groups` of series has a colour of its own.

    `draw(axes, label, series, key, colour)`, that is `draw_run` or `draw_seeds`, draws a group's values of
    <site>/<relation> into a panel. A relation that no group has gets no row; absent values are not drawn. Levels of
    chance are drawn as in `chance_band`, and a shared-weights level is dotted in the colour of its group. What is
    absent is said below the panels, after `note`.
    """
    drawn = [name for name in relations if any(group.get(f"{s}/{name}") for group in groups.values() for s in sites)]
    figure, places = grid(max(1, len(drawn)), max(1, len(sites)))
    with style():
        for row, name in enumerate(drawn):
            for column, site in enumerate(sites):
                place = places[row][column]
                draw_groups(place, groups, f"{site}/{name}", draw, RELATIONS[name].limits)
                epoch_axis(place, boundary, unit if row == len(drawn) - 1 else "")
                place.set(title=site_label(site) if row == 0 else "")
                place.set(ylabel=RELATIONS[name].label if column == 0 else "")
            within(places[row], RELATIONS[name].limits)
        if not drawn:
            say_empty(places[0][0], "no relation is defined")
        add_legend(figure)
        add_title(figure, title)
        add_notes(figure, [note, abbreviations(drawn), *missing_in(groups, sites, relations, unit)])
    return figure


def draw_groups(place: "Axes", groups: Mapping[str, Group], key: str, draw: "Draw", limits: Limits | None) -> None:
    """Draw the series `key` of all groups into a panel, with their errors and levels; say so if there is none."""
    curves = [(of, key, colour) for of, colour in zip(groups.values(), colours(len(groups)), strict=True)]
    for index, (label, curve) in enumerate(zip(groups, curves, strict=True)):
        before = len(place.get_lines())
        draw(place, label, *curve)
        for line in place.get_lines()[before:]:
            line.set_marker(MARKERS[index % len(MARKERS)])
    if not place.get_lines():
        say_empty(place, "undefined at every step")
    beside_curves(place, curves, limits)
    chance_band(place, curves, limits)


def draw_run(place: "Axes", run: str, series: Group, key: str, colour: Any) -> None:
    """Draw a line."""
    draw_series(place, series.get(key, {}), label=run, color=colour, marker="o", markersize=3)


def draw_seeds(place: "Axes", label: str, group: Group, key: str, colour: Any) -> None:
    """Draw the mean of runs that differ only in their seed, and the interval from <key>_lo to <key>_hi; thin lines at
    its ends tell overlapping intervals apart.
    """
    known = RELATIONS.get(key.rpartition("/")[2])
    draw_run(place, label, group, key, colour)
    between(place, group, key, colour, limits=known.limits if known else None)
