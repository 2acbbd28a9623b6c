"""Values of one model: one panel per quantity and one row per site, from the input (top) to the output (bottom)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nfa.figures.bands import CHANCE, ERRORS, SHARED, cut
from nfa.figures.notes import KINDS, abbreviations, add_notes, missing, say_empty
from nfa.figures.style import BLUE, add_legend, add_title, panels, site_label, style
from nfa.levels import Beside, beside
from nfa.relations import RELATIONS, Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNBIASED = "around the unbiased value"


def relations_by_site(
    values: Mapping[str, float], sites: Sequence[str], relations: Sequence[str], *, title: str = ""
) -> "Figure":
    """Draw relations by metric key, with bars of two standard errors around the unbiased value.

    Grey ticks are levels of chance, grey bars chance ± 2 SD, and open diamonds shared-weights levels. Undefined values
    are not drawn, and said below the panels. All cosines have the same scale, also where they are small.
    """
    drawn = [name for name in relations if any(f"{site}/{name}" in values for site in sites)]
    figure, places = panels(max(1, len(drawn)), height=_height(sites))
    with style():
        for place, name in zip(places, drawn, strict=False):
            keys = [f"{site}/{name}" for site in sites]
            _rows(place, values, keys, [site_label(site) for site in sites], RELATIONS[name].limits)
            place.set(title=RELATIONS[name].label, xlabel=KINDS[RELATIONS[name].kind], ylabel="site")
        if not drawn:
            say_empty(places[0], "no relation is defined")
            places[0].set(xticks=[], yticks=[])
        add_legend(figure)
        add_title(figure, title)
        series = {key: {0: value} for key, value in values.items()}
        add_notes(figure, [abbreviations(drawn), *missing(series, sites, relations)])
    return figure


def gradients_by_part(values: Mapping[str, float], parts: Sequence[str], *, title: str = "") -> "Figure":
    """Draw the root mean square of the gradient in each part of a model, on a logarithmic axis."""
    figure, places = panels(1, columns=1, width=5.6, height=_height(parts))
    with style():
        positive = {key: value for key, value in values.items() if value > 0}
        _rows(places[0], positive, [f"flow/{part}/grad_rms" for part in parts], parts, None)
        places[0].set(title="root mean square of the gradient", ylabel="part of the model")
        places[0].set(xscale="log" if positive else "linear")
        if not positive:
            say_empty(places[0], "all gradients are 0")
        add_title(figure, title)
        zero = [part for part in parts if f"flow/{part}/grad_rms" in values and f"flow/{part}/grad_rms" not in positive]
        add_notes(figure, [f"Not drawn, because the gradient is 0: {', '.join(zero)}" if zero and positive else ""])
    return figure


def _height(rows: Sequence[str]) -> float:
    return 1.2 + 0.22 * len(rows)  # inches


def _rows(
    place: "Axes", values: Mapping[str, float], keys: Sequence[str], labels: Sequence[str], limits: Limits | None
) -> None:
    for row, key in enumerate(keys):
        if key in values:
            _row(place, row, values[key], beside(values, key), limits)
    place.set_yticks(range(len(labels)), list(labels))
    place.set(ylim=(len(labels) - 0.5, -0.5))
    if limits is not None:
        place.set_xlim(*limits)
        for line in place.get_lines():
            line.set(clip_on=False)  # a value at an end is drawn whole


def _row(place: "Axes", row: int, value: float, by: Beside, limits: Limits | None) -> None:
    if by.chance is not None:
        reach = 2 * (by.chance_sd or 0)
        ends, label = cut(by.chance - reach, by.chance + reach, limits), CHANCE if reach else "_"
        place.plot(ends, [row, row], color="0.8", linewidth=6, solid_capstyle="butt", label=label)
        place.plot(by.chance, row, "|", color="0.5", label="_" if reach else "chance")
    if by.shared is not None:
        place.plot(by.shared, row, "D", color=BLUE, fillstyle="none", linestyle="none", label=SHARED)
    if by.standard_error is not None:
        middle, reach = value if by.unbiased is None else by.unbiased, 2 * by.standard_error
        ends = cut(middle - reach, middle + reach, limits)
        around = "" if by.unbiased is None else f" {UNBIASED}"
        place.plot(ends, [row, row], "|-", color=BLUE, markersize=7, label=f"{ERRORS}{around}")
    place.plot(value, row, "o", color=BLUE, label="value")
