"""Several training runs side by side: one colour for each."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nfa.figures.bands import beside_curves, chance_band
from nfa.figures.style import add_legend, add_title, epoch_axis, panels, site_label, style
from nfa.figures.training_analysis import LIMITS, Series, draw

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
    """
    figure, places = panels(len(sites) + 1)
    looks = [{"color": colour, "marker": marker} for colour, marker in zip(COLOURS, MARKERS, strict=True)]
    with style():
        for place, site in zip(places, (None, *sites), strict=True):
            for (name, series), look in zip(runs.items(), looks, strict=False):
                if site is None:
                    _losses(place, name, series, look)
                else:
                    draw(place, series.get(f"{site}/{relation}", {}), label=name, **look)
            epoch_axis(place, boundary)
            if site is None:
                place.set(title="losses (validation dashed)", ylabel="loss", yscale="log")
            else:
                key = f"{site}/{relation}"
                curves = [(series, key, colour) for series, colour in zip(runs.values(), COLOURS, strict=False)]
                beside_curves(place, curves, LIMITS)
                chance_band(place, curves, LIMITS)
                place.set(title=site_label(site), ylabel=label, ylim=LIMITS)
        add_legend(figure)
        add_title(figure, title)
    return figure


def _losses(place: "Axes", name: str, series: Mapping[str, Series], look: Mapping[str, str]) -> None:
    """Both losses at the epochs that have a training loss."""
    train, validation = series.get("train/loss", {}), series.get("val/loss", {})
    draw(place, train, label=name, **look)
    draw(place, {epoch: validation[epoch] for epoch in train if epoch in validation}, linestyle="--", **look)
