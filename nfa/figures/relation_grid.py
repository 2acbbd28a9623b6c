"""Relations × layers of several analyses: one line per run, or one per group of runs that differ only in their seed."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from nfa.figures.alignment_relations import band, chance
from nfa.figures.style import add_legend, add_title, epoch_axis, grid, site_label, style
from nfa.figures.training_analysis import Series
from nfa.figures.training_analysis import draw as draw_series
from nfa.relations import RELATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Value = TypeVar("Value")
Bands = Mapping[int, tuple[float, float, float]]  # epoch → mean, low, high


def colours(count: int) -> list[Any]:
    """Return so many distinct colours."""
    from matplotlib import colormaps

    if count <= 10:
        return [colormaps["tab10"](index) for index in range(count)]
    return [colormaps["turbo"](index / (count - 1)) for index in range(count)]


def relation_grid(
    groups: Mapping[str, Mapping[str, Mapping[int, Value]]],
    sites: Sequence[str],
    relations: Sequence[str],
    draw: "Callable[[Axes, str, Mapping[str, Mapping[int, Value]], str, Any], None]",
    *,
    title: str = "",
    boundary: int | None = None,
    unit: str = "epoch",
) -> "Figure":
    """Draw a row for each relation and a column for each site; each of the `groups` of series has a colour of its own.

    `draw(axes, label, series, key, colour)`, that is `draw_run` or `draw_seeds`, draws a group's values of
    <site>/<relation> into a panel. A relation that no group has gets no row; absent values are not drawn.
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
        add_title(figure, title)
    return figure


def draw_run(place: "Axes", run: str, series: Mapping[str, Series], key: str, colour: Any) -> None:
    """Draw a line, with a band of two standard errors and a chance level where they exist."""
    draw_series(place, series.get(key, {}), label=run, color=colour, marker="o", markersize=3)
    band(place, series, key, colour)
    chance(place, series.get(f"{key}_chance", {}))


def draw_seeds(place: "Axes", label: str, group: Mapping[str, Bands], key: str, colour: Any) -> None:
    """Draw the mean of runs that differ only in their seed, its interval, and their mean chance level where it exists.
    """
    chance(place, {epoch: mean for epoch, (mean, *_) in group.get(f"{key}_chance", {}).items()})
    bands = group.get(key, {})
    epochs = sorted(bands)
    if not epochs:
        return
    mean, low, high = ([bands[epoch][index] for epoch in epochs] for index in range(3))
    place.plot(epochs, mean, label=label, color=colour, marker="o", markersize=3)
    place.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
