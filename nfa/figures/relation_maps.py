"""Relations of many sites: a heat map of layer × step for each, where curves would be too many."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nfa.figures.notes import abbreviations, add_notes, missing, say_empty
from nfa.figures.style import add_title, epoch_axis, site_label, style
from nfa.figures.training_analysis import Series, draw_losses, share_losses
from nfa.levels import at_step
from nfa.relations import RELATIONS, Limits
from nfa.studies.verdicts import is_above

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, TALLEST, NAMED = 0.13, 8.0, 60  # inches of a site, of all sites, and most sites with a name
LETTERS = 20  # in a line of a panel's title
DOTS = "dot: not above chance by 2 √(SE² + SD²), with its standard error SE and the standard deviation SD of chance"
UNDEFINED = "grey: undefined"


def relation_maps(
    series: Mapping[str, Series],
    sites: Sequence[str],
    relations: Sequence[str],
    *,
    title: str = "",
    boundary: int | None = None,
    unit: str = "epoch",
    loss: str | None = None,
) -> "Figure":
    """Draw a map for each relation, with sites from the first (top) to the last, and a column for each step.

    Colours span what a relation can be, from 0 to 1 for cosines. A dot marks a value that is not above chance. With
    `loss`, the name of the loss, a panel of losses stands above the maps.
    """
    drawn = [name for name in relations if any(series.get(f"{site}/{name}") for site in sites)]
    steps = sorted({step for name in drawn for site in sites for step in series.get(f"{site}/{name}", {})})
    figure, top, places = _places(max(1, len(drawn)), len(sites), losses=loss is not None)
    with style():
        count = len(drawn)
        dotted = [_map(place, series, sites, name, steps, count) for place, name in zip(places, drawn, strict=False)]
        for place in places:
            _steps(place, steps, unit)
        _names(places[0], sites)
        if not drawn:
            say_empty(places[0], "no relation is defined at any step")
        if top:
            _losses(top, series, steps, loss or "", boundary, unit)
        add_title(figure, title)
        absent = missing(series, sites, relations, unit)
        keys = [*([UNDEFINED] if absent[0] else []), *([DOTS] if any(dotted) else [])]
        add_notes(figure, ["; ".join(keys), abbreviations(drawn), *absent])
    return figure


def _places(count: int, sites: int, *, losses: bool) -> "tuple[Figure, Axes | None, list[Axes]]":
    """Return a figure with a row of `count` maps, and a panel of losses above them if asked for."""
    from matplotlib.figure import Figure

    tall, above = min(TALLEST, max(1.5, ROW * sites)), 1.7 if losses else 0.0
    with style():
        figure = Figure(figsize=(max(5.6, 1.9 + 1.75 * count), tall + above + 1.4), layout="constrained")
        rows = figure.add_gridspec(2, count, height_ratios=(above or 0.01, tall))
        places = [figure.add_subplot(rows[1, column]) for column in range(count)]
        top = figure.add_subplot(rows[0, :]) if losses else None
    return figure, top, places


def _map(
    place: "Axes", series: Mapping[str, Series], sites: Sequence[str], name: str, steps: Sequence[int], count: int
) -> bool:
    """Draw a relation, one of `count`; return whether there are dots."""
    import numpy as np

    values = np.array([[series.get(f"{site}/{name}", {}).get(step, np.nan) for step in steps] for site in sites])
    low, high = _ends(RELATIONS[name].limits, values)
    colours = "PuOr" if low < 0 <= high and RELATIONS[name].limits else "viridis"
    mesh = place.pcolormesh(np.ma.masked_invalid(values), cmap=colours, vmin=low, vmax=high)
    bar = place.figure.colorbar(mesh, ax=place, location="bottom", aspect=max(12, 40 / count), pad=0.01)
    bar.ax.tick_params(labelsize=8)
    title = textwrap.fill(RELATIONS[name].label, LETTERS)
    place.set(title=title, facecolor="0.85", ylim=(len(sites), 0), yticks=[], xticks=[])
    place.grid(visible=False)
    at = [at_step(series, step) for step in steps]
    above = [[is_above(found, f"{site}/{name}", "chance") for found in at] for site in sites]
    rows, columns = np.nonzero(np.array([[of is False for of in row] for row in above]).reshape(len(sites), -1))
    for colour, size in (("white", 7), ("black", 2)):  # seen on every colour
        place.scatter(columns + 0.5, rows + 0.5, s=size, color=colour, linewidths=0)
    return len(rows) > 0


def _ends(limits: Limits | None, values: "np.ndarray[Any, Any]") -> tuple[float, float]:
    """Return the ends of the colours: those of the relation, or else of its values."""
    import numpy as np

    low, high = limits or (None, None)
    return (
        float(np.nanmin(values)) if low is None else low,
        max(float(np.nanmax(values)), (low or 0) + 0.1) if high is None else high,
    )


def _steps(place: "Axes", steps: Sequence[int], unit: str) -> None:
    """Name some of the columns."""
    shown = range(0, len(steps), max(1, -(-len(steps) // 5)))
    place.set_xticks([index + 0.5 for index in shown], [str(steps[index]) for index in shown])
    place.set_xlabel(unit)


def _names(place: "Axes", sites: Sequence[str]) -> None:
    """Name the rows, or every second or third of very many."""
    shown = range(0, len(sites), -(-len(sites) // NAMED))
    place.set_yticks([index + 0.5 for index in shown], [site_label(sites[index]) for index in shown], fontsize=7)


def _losses(
    place: "Axes", series: Mapping[str, Series], steps: Sequence[int], loss: str, boundary: int | None, unit: str
) -> None:
    draw_losses(place, series, {*steps, *series.get("train/loss", {})})
    share_losses([place], loss)
    epoch_axis(place, boundary, unit)
    if place.get_lines():
        place.legend(loc="upper right", fontsize=8)
