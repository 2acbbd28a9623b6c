"""Every relation of one run: one panel per relation, one line per site."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nfa.figures.bands import beside_curves, chance_band, within
from nfa.figures.notes import KINDS, abbreviations, add_notes, missing, say_empty
from nfa.figures.style import add_legend, add_title, epoch_axis, panels, site_label, style
from nfa.figures.training_analysis import Series, draw
from nfa.relations import RELATIONS

if TYPE_CHECKING:
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

    Absent values are not drawn, and said below the panels. Where they exist, a band shows two standard errors, and a
    dotted line in the colour of its site the shared-weights level; levels of chance are drawn as in `chance_band`.
    """
    from matplotlib import colormaps

    drawn = [name for name in relations if any(series.get(f"{site}/{name}") for site in sites)]
    figure, places = panels(max(1, len(drawn)))
    shades = colormaps["viridis"]
    with style():
        for place, name in zip(places, drawn, strict=False):
            limits, curves = RELATIONS[name].limits, []
            for index, site in enumerate(sites):
                colour = shades(0.9 * index / max(1, len(sites) - 1))
                draw(place, series.get(f"{site}/{name}", {}), label=site_label(site), color=colour, marker="o")
                curves.append((series, f"{site}/{name}", colour))
            beside_curves(place, curves, limits)
            chance_band(place, curves, limits)
            within([place], limits)
            place.set(title=RELATIONS[name].label, ylabel=KINDS[RELATIONS[name].kind])
            epoch_axis(place, boundary, unit)
        if not drawn:
            say_empty(places[0], "no relation is defined at any step")
        add_legend(figure)
        add_title(figure, title)
        add_notes(figure, [abbreviations(drawn), *missing(series, sites, relations, unit)])
    return figure
