"""Values of one model: one panel per quantity and one row per site, from the input (top) to the output (bottom)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nfa.figures.bands import CHANCE, SHARED
from nfa.figures.style import add_legend, add_title, panels, site_label, style
from nfa.levels import Beside, beside
from nfa.relations import RELATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def relations_by_site(
    values: Mapping[str, float], sites: Sequence[str], relations: Sequence[str], *, title: str = ""
) -> "Figure":
    """Draw relations by metric key, with bars of two standard errors. Undefined values are not drawn.

    Grey ticks are levels of chance, grey bars chance ± 2 SD, and open diamonds shared-weights levels.
    """
    drawn = [name for name in relations if any(f"{site}/{name}" in values for site in sites)]
    figure, places = panels(max(1, len(drawn)), height=_height(sites))
    with style():
        for place, name in zip(places, drawn, strict=False):
            keys = [f"{site}/{name}" for site in sites]
            _rows(place, values, keys, [site_label(site) for site in sites])
            place.set(title=RELATIONS[name].label, xlim=RELATIONS[name].limits)
        add_legend(figure)
        add_title(figure, title)
    return figure


def gradients_by_part(values: Mapping[str, float], parts: Sequence[str], *, title: str = "") -> "Figure":
    """Draw the root mean square of the gradient in each part of a model, on a logarithmic axis."""
    figure, places = panels(1, columns=1, width=5.6, height=_height(parts))
    with style():
        positive = {key: value for key, value in values.items() if value > 0}
        _rows(places[0], positive, [f"flow/{part}/grad_rms" for part in parts], parts)
        places[0].set(title="RMS of the gradient", xscale="log")
        add_title(figure, title)
    return figure


def _height(rows: Sequence[str]) -> float:
    return 1.2 + 0.22 * len(rows)  # inches


def _rows(place: "Axes", values: Mapping[str, float], keys: Sequence[str], labels: Sequence[str]) -> None:
    for row, key in enumerate(keys):
        if key in values:
            _row(place, row, values[key], beside(values, key))
    place.set_yticks(range(len(labels)), list(labels))
    place.set(ylim=(len(labels) - 0.5, -0.5))


def _row(place: "Axes", row: int, value: float, by: Beside) -> None:
    if by.chance is not None:
        reach = 2 * (by.chance_sd or 0)
        ends, label = [by.chance - reach, by.chance + reach], CHANCE if reach else "_"
        place.plot(ends, [row, row], color="0.8", linewidth=6, solid_capstyle="butt", label=label)
        place.plot(by.chance, row, "|", color="0.5", label="_" if reach else "chance")
    if by.shared is not None:
        place.plot(by.shared, row, "D", color="C0", fillstyle="none", linestyle="none", label=SHARED)
    if by.standard_error is not None:
        middle = value if by.unbiased is None else by.unbiased
        place.errorbar(middle, row, xerr=2 * by.standard_error, fmt="none", color="C0", capsize=3)
    place.plot(value, row, "o", color="C0")
