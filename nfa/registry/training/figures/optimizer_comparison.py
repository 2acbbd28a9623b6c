"""Several training runs side by side: one colour for each."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nfa.figures.bands import beside_curves, chance_band
from nfa.figures.style import add_legend, add_title, epoch_axis, panels, site_label, style
from nfa.figures.training_analysis import LIMITS, Series, between, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
MARKERS = ("o", "s", "^", "D", "v", "*")


def optimizer_comparison(
    runs: Mapping[str, Mapping[str, Series]],
    sites: Sequence[str],
    *,
    relation: str = "agop_nfm",
    label: str = "AGOP vs NFM",
    boundary: int | None = None,
    title: str = "",
) -> "Figure":
    """Draw a panel of losses (validation dashed) and one per site with `relation`; `runs` are series by run name.

    The grey band is chance ± 2 SD over all runs, and a dotted line the shared-weights level of the run of its colour.
    Where <key>_lo and <key>_hi exist, as for a mean over seeds, there is a band between them.
    """
    figure, places = panels(len(sites) + 1)
    looks = [{"color": colour, "marker": marker} for colour, marker in zip(COLOURS, MARKERS, strict=True)]
    with style():
        for place, site in zip(places, (None, *sites), strict=True):
            epoch_axis(place, boundary)
            if site is None:
                _losses(place, runs, looks)
            else:
                key = f"{site}/{relation}"
                curves = [(series, key, colour) for series, colour in zip(runs.values(), COLOURS, strict=False)]
                for (name, series), look in zip(runs.items(), looks, strict=False):
                    draw(place, series.get(key, {}), label=name, **look)
                    between(place, series, key, look["color"])
                beside_curves(place, curves, LIMITS)
                chance_band(place, curves, LIMITS)
                place.set(title=site_label(site), ylabel=label, ylim=LIMITS)
        add_legend(figure)
        add_title(figure, title)
    return figure


def _losses(place: "Axes", runs: Mapping[str, Mapping[str, Series]], looks: Sequence[Mapping[str, str]]) -> None:
    """Draw both losses of every run at the epochs that have a training loss, and the bands of the validation loss."""
    place.set(title="losses (validation dashed)", ylabel="loss", yscale="log")
    drawn = [{key: _at(of.get("train/loss", {}), of_key) for key, of_key in of.items()} for of in runs.values()]
    for name, series, look in zip(runs, drawn, looks, strict=False):
        draw(place, series.get("train/loss", {}), label=name, **look)
        draw(place, series.get("val/loss", {}), linestyle="--", **look)
    for series, look in zip(drawn, looks, strict=False):
        between(place, series, "val/loss", look["color"])


def _at(epochs: Series, series: Series) -> Series:
    return {epoch: series[epoch] for epoch in epochs if epoch in series}
