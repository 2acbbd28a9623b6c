"""Losses and similarities of every analysed layer through training."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nfa.figures.bands import CHANCE, beside_curves, chance_band, cut, within
from nfa.figures.notes import abbreviations, add_notes, missing, missing_in, say_empty
from nfa.figures.style import (
    BLACK,
    DECADES,
    GREEN,
    LOSSES,
    ORANGE,
    PURPLE,
    SKY,
    add_legend,
    add_title,
    epoch_axis,
    panels,
    plain_numbers,
    site_label,
    style,
)
from nfa.relations import KNOWN, RELATIONS, Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = Mapping[int, float]
LOOKS = {
    "agop_nfm": {"color": GREEN, "marker": "^"},
    "g_vs_h": {"color": PURPLE, "marker": "D"},
    "g_vs_m": {"color": SKY, "marker": "v"},
    "h_vs_m": {"color": ORANGE, "marker": "*"},
    "agop_known": {"color": BLACK, "marker": "P"},
    "nfm_known": {"color": "0.5", "marker": "X"},
}
LIMITS = (0.0, 1.0)
NO_LOSS = "no loss was logged"


def training_analysis(
    series: Mapping[str, Series],
    sites: Sequence[str],
    similarities: Sequence[str] = ("agop_nfm",),
    *,
    title: str = "",
    loss: str = "",
    boundary: int | None = None,
    unit: str = "epoch",
    band: str = "",
) -> "Figure":
    """Draw one panel per site: losses on a logarithmic left axis, similarities on a right axis from 0 to 1.

    `series` holds epoch → value by metric key (`train/loss`, `layer_0/agop_nfm`, …), and `loss` is the name of the
    loss. Losses are drawn at the epochs that have similarities. Where they exist, a band shows two standard errors, and
    a dotted line in the colour of its curve the shared-weights level. The grey band is chance ± 2 SD of the first of
    `similarities` alone, because those of all would cover the panel; chance levels of shares in known features are
    dashed in the colour of their curve. Where <key>_lo and <key>_hi exist, as for a mean over seeds or blocks, the band
    between them is labelled `band`.
    """
    figure, places = panels(len(sites))
    with style():
        lefts = [
            _panel(place, series, site, similarities, boundary, unit) for place, site in zip(places, sites, strict=True)
        ]
        share_losses(lefts, loss)
        if any(f"{site}/{name}_lo" in series for site in sites for name in similarities):
            lefts[-1].fill_between([], [], color="0.5", alpha=0.3, linewidth=0, label=band)
        add_legend(figure)
        add_title(figure, title)
        add_notes(figure, [abbreviations(similarities), *missing(series, sites, similarities, unit)])
    return figure


def training_analyses(
    runs: Mapping[str, Mapping[str, Series]],
    sites: Sequence[str],
    similarities: Sequence[str],
    *,
    title: str = "",
    loss: str = "",
) -> "Figure":
    """Draw a row of such panels for each run, all with the same scales; `runs` are series by run name."""
    figure, places = panels(len(runs) * len(sites), columns=len(sites))
    with style():
        for row, (name, series) in enumerate(runs.items()):
            for column, site in enumerate(sites):
                place = places[row * len(sites) + column]
                _panel(place, series, site, similarities, None, "epoch")
                place.set_title(f"{name}, {site_label(site)}")
        share_losses(places, loss)
        add_legend(figure)
        add_title(figure, title)
        add_notes(figure, [abbreviations(similarities), *missing_in(runs, sites, similarities)])
    return figure


def _panel(
    axes: "Axes", series: Mapping[str, Series], site: str, similarities: Sequence[str], boundary: int | None, unit: str
) -> "Axes":
    """Draw a site and return the left axes, whose scale is not set yet."""
    measured = set().union(*(series.get(f"{site}/{name}", {}) for name in similarities))
    epochs = measured | set(series.get("train/loss", {}))
    draw_losses(axes, series, epochs)
    axes.set_title(site_label(site))
    epoch_axis(axes, boundary, unit)
    right = axes.twinx()
    for name in similarities:
        draw(right, series.get(f"{site}/{name}", {}), label=RELATIONS[name].label, **LOOKS[name])
        between(right, series, f"{site}/{name}", LOOKS[name]["color"], limits=LIMITS)
    curves = {name: (series, f"{site}/{name}", LOOKS[name]["color"]) for name in similarities}
    beside_curves(right, curves.values(), LIMITS)
    first = {name: curve for name, curve in curves.items() if name in KNOWN or name == similarities[0]}
    chance_band(right, first.values(), LIMITS, label=f"{CHANCE}, {RELATIONS[similarities[0]].label}")
    within([right], LIMITS)
    right.set_ylabel(_scale(similarities))
    right.spines["right"].set_visible(True)
    right.grid(visible=False)
    if not measured:
        say_empty(right, "no similarity is defined here")
    return axes


def draw_losses(axes: "Axes", series: Mapping[str, Series], epochs: Collection[int]) -> None:
    """Draw the losses of these epochs with the bands around means on a logarithmic axis; say so if none was logged, as
    in a user's own training loop.
    """
    found = {key: of_key for key, of_key in series.items() if key.startswith(tuple(LOSSES))}
    losses = {key: {at: value for at, value in of.items() if at in epochs} for key, of in found.items()}
    if not any(losses.values()):
        axes.set_yticks([])
        axes.set_ylabel(NO_LOSS, color="0.5")
        return
    for key, look in LOSSES.items():
        draw(axes, losses.get(key, {}), **look)
    axes.set_yscale("log")
    for key, look in LOSSES.items():
        between(axes, losses, key, look["color"], alpha=0.1)


def share_losses(places: "Sequence[Axes]", loss: str) -> None:
    """Name the loss on the axes that have one, and give them all one scale."""
    drawn = [place for place in places if place.get_yscale() == "log"]
    ends = [place.get_ylim() for place in drawn]
    for place in drawn:
        place.set(ylabel=loss_label(loss), ylim=(min(low for low, _ in ends), max(high for _, high in ends)))
        low, high = place.get_ylim()
        if high < DECADES * low:
            plain_numbers(place.yaxis)


def loss_label(loss: str) -> str:
    """Return the label of an axis of losses, in two lines.

    >>> loss_label("cross-entropy"), loss_label("")
    ('cross-entropy\\n(train, validation)', 'loss\\n(train, validation)')
    """
    return f"{loss or 'loss'}\n(train, validation)"


def _scale(similarities: Sequence[str]) -> str:
    """Return the label of the right axis."""
    shares = [name for name in similarities if name in KNOWN]
    words = ["cosine similarity"] * (len(shares) < len(similarities)) + ["share"] * bool(shares)
    return ", ".join(words)


def between(
    axes: "Axes",
    series: Mapping[str, Series],
    key: str,
    colour: Any,
    alpha: float = 0.15,
    *,
    limits: Limits | None = None,
) -> None:
    """Draw a band between the two ends that a series has beside a mean; on a logarithmic axis after all lines.

    The band is cut at `limits`, which a mean keeps but an interval around it may exceed. A logarithmic axis reaches
    down to the band, but at most to a tenth of its lowest value, as an end may be negative.
    """
    from matplotlib.colors import to_rgba

    low, high = series.get(f"{key}_lo", {}), series.get(f"{key}_hi", {})
    epochs = sorted(low)
    if not epochs:
        return
    bottom, top = map(list, zip(*(cut(low[epoch], high[epoch], limits) for epoch in epochs), strict=True))
    if axes.get_yscale() == "log":
        lowest, highest = axes.get_ylim()
        bottom = [max(end, lowest / 10) for end in bottom]
        axes.set_ylim(min(lowest, *bottom), max(highest, *top))
    faces, edges = to_rgba(colour, alpha), to_rgba(colour, 0.5)  # edges tell bands that overlap apart
    axes.fill_between(epochs, bottom, top, facecolor=faces, edgecolor=edges, linewidth=0.5 if len(epochs) > 1 else 2)


def draw(axes: "Axes", values: Series, **look: Any) -> None:
    """Draw one series in epoch order; nothing if it has no values."""
    if not values:
        return
    epochs = sorted(values)
    axes.plot(epochs, [values[epoch] for epoch in epochs], **look)
