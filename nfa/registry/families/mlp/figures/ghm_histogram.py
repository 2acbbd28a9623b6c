"""Histogram of gradient norms, and bin weights, at the checkpoints of a training with GHM."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nfa.figures.notes import add_notes, say_empty
from nfa.figures.style import add_title, panels, plain_numbers, style
from nfa.figures.training_analysis import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTE = (
    "GHM: gradient harmonising mechanism, which weights an entry of the output by how few have such a gradient. "
    "White: no entry in the bin, or no weight."
)


def ghm_histogram(series: Mapping[str, Series], bins: int, *, title: str = "") -> "Figure":
    """Draw the share of entries (left) and the weight (right) of each bin of g (rows) at each checkpoint (columns).

    Colours are logarithmic; empty bins and bins without a weight stay white, which is said below.
    """
    figure, places = panels(2, columns=2, width=4.2, height=3.0)
    with style():
        labels = {"share": "share of the entries in each bin", "weight": "weight of each bin"}
        for place, (kind, label) in zip(places, labels.items(), strict=True):
            _picture(figure, place, series, f"ghm/{kind}_bin_", bins)
            place.set(title=label, xlabel="checkpoint epoch", ylabel="gradient norm g")
        add_title(figure, title)
        add_notes(figure, [NOTE])
    return figure


def _picture(figure: "Figure", place: "Axes", series: Mapping[str, Series], prefix: str, bins: int) -> None:
    from matplotlib.colors import LogNorm

    found = [series.get(f"{prefix}{index}", {}) for index in range(bins)]
    epochs = sorted(set().union(*found))
    values = np.array([[of_bin.get(epoch, 0.0) for epoch in epochs] for of_bin in found])
    shown = np.ma.masked_less_equal(values, 0)
    norm = LogNorm(shown.min(), shown.max()) if shown.count() and shown.min() < shown.max() else None
    edges = np.linspace(0, 1, bins + 1)
    mesh = place.pcolormesh(np.arange(len(epochs) + 1), edges, shown, norm=norm, cmap="viridis")
    step = max(1, len(epochs) // 8)
    place.set_xticks(np.arange(len(epochs))[::step] + 0.5, [str(epoch) for epoch in epochs[::step]])
    place.grid(visible=False)
    if not shown.count():
        say_empty(place, "no bin has a value at any checkpoint")
        return
    plain_numbers(figure.colorbar(mesh, ax=place).ax.yaxis)
