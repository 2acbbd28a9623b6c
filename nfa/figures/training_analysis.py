"""Losses and similarities of every analysed layer through training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nfa.figures.bands import CHANCE, beside_curves, chance_band
from nfa.figures.style import LONG, LOSSES, add_legend, add_title, epoch_axis, panels, plain_numbers, site_label, style
from nfa.relations import KNOWN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = Mapping[int, float]
SIMILARITIES = {
    "agop_nfm": {"label": "AGOP vs NFM", "color": "tab:green", "marker": "^"},
    "g_vs_h": {"label": "G vs H", "color": "tab:purple", "marker": "D"},
    "g_vs_m": {"label": "G vs M", "color": "tab:cyan", "marker": "v"},
    "h_vs_m": {"label": "H vs M", "color": "tab:orange", "marker": "*"},
    "agop_known": {"label": "AGOP in the known features", "color": "tab:olive", "marker": "P"},
    "nfm_known": {"label": "NFM in the known features", "color": "tab:pink", "marker": "X"},
}
LIMITS = (0.0, 1.0)


def training_analysis(
    series: Mapping[str, Series],
    sites: Sequence[str],
    similarities: Sequence[str] = ("agop_nfm",),
    *,
    title: str = "",
    boundary: int | None = None,
    unit: str = "epoch",
    band: str = "",
) -> "Figure":
    """Draw one panel per site: losses on a logarithmic left axis, similarities on a right axis from 0 to 1.

    `series` holds epoch → value by metric key (`train/loss`, `layer_0/agop_nfm`, …). Losses are drawn at the epochs
    that have similarities. Where they exist, a band shows two standard errors, and a dotted line in the colour of its
    curve the shared-weights level. The grey band is chance ± 2 SD of the first of `similarities` alone, because those
    of all would cover the panel; chance levels of shares in known features are grey lines. Where <key>_lo and
    <key>_hi exist, as for a mean over seeds or blocks, the band between them is labelled `band`.
    """
    figure, places = panels(len(sites))
    with style():
        for place, site in zip(places, sites, strict=True):
            _panel(place, series, site, similarities, boundary, unit)
            if any(f"{site}/{name}_lo" in series for name in similarities):
                place.fill_between([], [], color="0.5", alpha=0.3, linewidth=0, label=band)
        add_legend(figure)
        add_title(figure, title)
    return figure


def training_analyses(
    runs: Mapping[str, Mapping[str, Series]], sites: Sequence[str], similarities: Sequence[str], *, title: str = ""
) -> "Figure":
    """Draw a row of such panels for each run; `runs` are series by run name."""
    figure, places = panels(len(runs) * len(sites), columns=len(sites))
    with style():
        for row, (name, series) in enumerate(runs.items()):
            for column, site in enumerate(sites):
                place = places[row * len(sites) + column]
                _panel(place, series, site, similarities, None, "epoch")
                place.set_title(f"{name}, {site_label(site)}")
        add_legend(figure)
        add_title(figure, title)
    return figure


def _panel(
    axes: "Axes", series: Mapping[str, Series], site: str, similarities: Sequence[str], boundary: int | None, unit: str
) -> None:
    epochs = set().union(*(series.get(f"{site}/{name}", {}) for name in similarities)) | set(
        series.get("train/loss", {})
    )
    losses = {key: of_key for key, of_key in series.items() if key.startswith(tuple(LOSSES))}
    drawn = {key: {at: value for at, value in of_key.items() if at in epochs} for key, of_key in losses.items()}
    for key, look in LOSSES.items():
        draw(axes, drawn.get(key, {}), **look)
    axes.set_title(site_label(site))
    _loss_axis(axes, drawn)
    epoch_axis(axes, boundary, unit)
    right = axes.twinx()
    for name in similarities:
        draw(right, series.get(f"{site}/{name}", {}), **SIMILARITIES[name])
        between(right, series, f"{site}/{name}", SIMILARITIES[name]["color"])
    curves = {name: (series, f"{site}/{name}", SIMILARITIES[name]["color"]) for name in similarities}
    beside_curves(right, curves.values(), LIMITS)
    grey = [curve for name, curve in curves.items() if name in KNOWN or name == similarities[0]]
    chance_band(right, grey, LIMITS, label=f"{CHANCE}, {SIMILARITIES[similarities[0]]['label']}")
    right.set(ylim=LIMITS, ylabel=_scale(similarities))
    right.spines["right"].set_visible(True)
    right.grid(visible=False)


def _loss_axis(axes: "Axes", losses: Mapping[str, Series]) -> None:
    """Set up the left axis, with the bands around means; it has no ticks if no loss was logged, as in a user's own
    training loop.
    """
    if not axes.get_lines():
        axes.set_yticks([])
        return
    axes.set(ylabel="loss", yscale="log")
    for key, look in LOSSES.items():
        between(axes, losses, key, look["color"], alpha=0.1)
    low, high = axes.get_ylim()
    if high < LONG * low:
        plain_numbers(axes.yaxis)


def _scale(similarities: Sequence[str]) -> str:
    """Return the label of the right axis."""
    shares = [name for name in similarities if name in KNOWN]
    words = ["cosine similarity"] * (len(shares) < len(similarities)) + ["share"] * bool(shares)
    return ", ".join(words)


def between(axes: "Axes", series: Mapping[str, Series], key: str, colour: Any, alpha: float = 0.15) -> None:
    """Draw a band between the two ends that a series has beside a mean; on a logarithmic axis after all lines.

    A logarithmic axis reaches down to the band, but at most to a tenth of its lowest value, as an end may be negative.
    """
    low, high = series.get(f"{key}_lo", {}), series.get(f"{key}_hi", {})
    epochs = sorted(low)
    if not epochs:
        return
    bottom, top = ([side[epoch] for epoch in epochs] for side in (low, high))
    if axes.get_yscale() == "log":
        lowest, highest = axes.get_ylim()
        bottom = [max(end, lowest / 10) for end in bottom]
        axes.set_ylim(min(lowest, *bottom), max(highest, *top))
    axes.fill_between(epochs, bottom, top, color=colour, alpha=alpha, linewidth=0 if len(epochs) > 1 else 2)


def draw(axes: "Axes", values: Series, **look: Any) -> None:
    """Draw one series in epoch order; nothing if it has no values."""
    if not values:
        return
    epochs = sorted(values)
    axes.plot(epochs, [values[epoch] for epoch in epochs], **look)
