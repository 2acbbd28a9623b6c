"""Every relation of one run: one panel per relation, one line per site."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nfa.figures.style import add_legend, add_title, epoch_axis, panels, site_label, style
from nfa.figures.training_analysis import Series, draw
from nfa.relations import RELATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def alignment_relations(
    series: Mapping[str, Series],
    sites: Sequence[str],
    relations: Sequence[str],
    *,
    title: str = "",
    boundary: int | None = None,
    unit: str = "epoch",
) -> "Figure":
    """Draw a panel for each relation over epochs, or another `unit`, with sites from the first (dark) to the last
    (light).

    Absent values are not drawn. A band shows two standard errors, and a dotted line the chance level, where they exist.
    """
    from matplotlib import colormaps

    drawn = [name for name in relations if any(series.get(f"{site}/{name}") for site in sites)]
    figure, places = panels(max(1, len(drawn)))
    shades = colormaps["viridis"]
    with style():
        for place, name in zip(places, drawn, strict=False):
            for index, site in enumerate(sites):
                colour = shades(0.9 * index / max(1, len(sites) - 1))
                draw(place, series.get(f"{site}/{name}", {}), label=site_label(site), color=colour, marker="o")
                band(place, series, f"{site}/{name}", colour)
                chance(place, series.get(f"{site}/{name}_chance", {}))
            place.set(title=RELATIONS[name].label, ylim=RELATIONS[name].limits)
            epoch_axis(place, boundary, unit)
        add_legend(figure)
        add_title(figure, title)
    return figure


def chance(place: "Axes", levels: Series) -> None:
    """Draw a grey dotted line at the chance level."""
    draw(place, levels, label="chance", color="0.5", linestyle=":")


def band(place: "Axes", series: Mapping[str, Series], key: str, colour: Any) -> None:
    """Draw a band of two standard errors on each side, where the series has them."""
    values, errors = series.get(key, {}), series.get(f"{key}_se", {})
    epochs = [epoch for epoch in sorted(values) if epoch in errors]
    low, high = ([values[epoch] + sign * 2 * errors[epoch] for epoch in epochs] for sign in (-1, 1))
    if epochs:
        place.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0 if len(epochs) > 1 else 2)
