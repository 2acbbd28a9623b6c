"""Values of one model: one panel per quantity and one row per site, from the input (top) to the output (bottom)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nfa.figures.style import add_title, panels, site_label, style
from nfa.relations import RELATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def relations_by_site(
    values: Mapping[str, float], sites: Sequence[str], relations: Sequence[str], *, title: str = ""
) -> "Figure":
    """Draw relations by metric key, with bars of two standard errors and grey ticks at chance levels.

    Undefined values are not drawn.
    """
    drawn = [name for name in relations if any(f"{site}/{name}" in values for site in sites)]
    figure, places = panels(max(1, len(drawn)), height=_height(sites))
    with style():
        for place, name in zip(places, drawn, strict=False):
            keys = [f"{site}/{name}" for site in sites]
            _rows(place, values, keys, [site_label(site) for site in sites])
            place.set(title=RELATIONS[name].label, xlim=RELATIONS[name].limits)
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
            error = 2 * values[f"{key}_se"] if f"{key}_se" in values else None
            chance = [values[f"{key}_chance"]] if f"{key}_chance" in values else []
            place.plot(chance, [row] * len(chance), "|", color="0.5")
            place.errorbar(values[key], row, xerr=error, fmt="o", color="C0", capsize=3)
    place.set_yticks(range(len(labels)), list(labels))
    place.set(ylim=(len(labels) - 0.5, -0.5))
