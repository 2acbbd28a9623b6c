"""Several training runs side by side: one colour for each."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nfa.figures.bands import beside_curves, chance_band, within
from nfa.figures.notes import abbreviations, add_notes, missing_in, say_empty
from nfa.figures.relation_grid import MARKERS, colours
from nfa.figures.style import add_legend, add_title, epoch_axis, panels, site_label, style
from nfa.figures.training_analysis import LIMITS, NO_LOSS, Series, between, draw, share_losses
from nfa.relations import RELATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Runs = Mapping[str, Mapping[str, Series]]


def optimizer_comparison(
    runs: Runs,
    sites: Sequence[str],
    *,
    relation: str = "agop_nfm",
    loss: str = "",
    boundary: int | None = None,
    title: str = "",
    note: str = "",
) -> "Figure":
    """Draw a panel of losses (validation dashed) and one per site with `relation`; `runs` are series by run name.

    Levels of chance are drawn as in `chance_band`, and a dotted line is the shared-weights level of the run of its
    colour. Where <key>_lo and <key>_hi exist, as for a mean over seeds, there is a band between them. `loss` is the
    name of the loss, and what is absent is said below the panels, after `note`.
    """
    figure, places = panels(len(sites) + 1)
    shades = colours(len(runs))
    looks = [{"color": shade, "marker": MARKERS[index % len(MARKERS)]} for index, shade in enumerate(shades)]
    with style():
        _losses(places[0], runs, looks, loss)
        for place, site in zip(places[1:], sites, strict=True):
            _site(place, runs, f"{site}/{relation}", looks)
            place.set(title=site_label(site), ylabel=RELATIONS[relation].label)
        for place in places:
            epoch_axis(place, boundary)
        within(places[1:], LIMITS)
        add_legend(figure)
        add_title(figure, title)
        add_notes(figure, [note, abbreviations([relation]), *missing_in(runs, sites, [relation])])
    return figure


def _site(place: "Axes", runs: Runs, key: str, looks: Sequence[Mapping[str, Any]]) -> None:
    for (name, series), look in zip(runs.items(), looks, strict=True):
        draw(place, series.get(key, {}), label=name, **look)
        between(place, series, key, look["color"], limits=LIMITS)
    if not place.get_lines():
        say_empty(place, "undefined at every step")
    curves = [(series, key, look["color"]) for series, look in zip(runs.values(), looks, strict=True)]
    beside_curves(place, curves, LIMITS)
    chance_band(place, curves, LIMITS)


def _losses(place: "Axes", runs: Runs, looks: Sequence[Mapping[str, Any]], loss: str) -> None:
    """Draw both losses of every run at the epochs that have a training loss, and the bands of the validation loss."""
    place.set_title("losses (validation dashed)")
    drawn = [{key: _at(of.get("train/loss", {}), of_key) for key, of_key in of.items()} for of in runs.values()]
    for name, series, look in zip(runs, drawn, looks, strict=True):
        draw(place, series.get("train/loss", {}), label=name, **look)
        draw(place, series.get("val/loss", {}), linestyle="--", **look)
    if not place.get_lines():
        say_empty(place, NO_LOSS)
        return
    place.set_yscale("log")
    for series, look in zip(drawn, looks, strict=True):
        between(place, series, "val/loss", look["color"])
    share_losses([place], loss)


def _at(epochs: Series, series: Series) -> Series:
    return {epoch: series[epoch] for epoch in epochs if epoch in series}
