"""Figures of decoding: true and decoded windows, and the course of a training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nfa.figures.notes import add_notes, say_empty
from nfa.figures.style import BLUE, LOSSES, VERMILLION, add_legend, add_title, epoch_axis, panels, style
from nfa.figures.training_analysis import Series, between, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWN = (*LOSSES, "val/pearson", "val/baseline_pearson")  # keys of the series in `decoding`
R = (-1.0, 1.0)
EEG = "EEG: electroencephalogram; r: Pearson's correlation"
Signal = np.ndarray[Any, Any]


class Window(NamedTuple):
    """A window's true and decoded signal [T], and Pearson's r between them."""

    name: str
    r: float
    true: Signal
    decoded: Signal


def envelopes(windows: Sequence[Window], *, rate: int, title: str = "") -> "Figure":
    """Draw both signals of each window, in units of the true signal's standard deviation over the recording."""
    figure, places = panels(len(windows) or 1, columns=1, width=7.2, height=1.7)
    with style():
        for place, window in zip(places, windows, strict=False):
            time = np.arange(len(window.true)) / rate
            place.plot(time, window.true, color="0.35", label="true envelope")
            place.plot(time, window.decoded, color="tab:red", label="decoded")
            place.set(title=f"{window.name}, r = {window.r:.3f}", ylabel="envelope", xlim=(0, time[-1]))
        ends = [place.get_ylim() for place in places]
        for place in places:
            place.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
        if not windows:
            say_empty(places[0], "no window has a defined r")
        places[-1].set_xlabel("time, s")
        add_legend(figure)
        add_title(figure, title)
        add_notes(figure, ["Envelopes are in standard deviations of the true one over the recording.", EEG])
    return figure


def decoding(
    series: Mapping[str, Series],
    pairs: Mapping[str, tuple[float, float]],
    *,
    best: int,
    title: str = "",
    loss: str = "",
) -> "Figure":
    """Draw losses, validation r, and for each test recording the model's r against the linear baseline's.

    `series` is by metric key, `pairs` of (baseline, model) by recording; `best` is the chosen epoch, and `loss` the
    name of the loss.
    """
    figure, places = panels(3, width=3.5, height=3.0)
    with style():
        _losses(places[0], series, loss)
        _correlation(places[1], series, best)
        for place in places[:2]:
            epoch_axis(place, None)
        _recordings(places[2], pairs)
        add_legend(figure)
        add_title(figure, title)
        add_notes(figure, [EEG])
    return figure


def decoding_over_seeds(series: Mapping[str, Series], *, title: str = "", loss: str = "") -> "Figure":
    """Draw losses and validation r, means over seeds, with bands between the ends of their intervals."""
    figure, places = panels(2, columns=2, width=3.9, height=3.0)
    with style():
        _losses(places[0], series, loss)
        draw(places[1], series.get("val/pearson", {}), color=VERMILLION, marker="s", markersize=2.5)
        between(places[1], series, "val/pearson", VERMILLION, limits=R)
        places[1].set(title="validation", ylabel="Pearson's r, mean over recordings")
        for place in places:
            epoch_axis(place, None)
        add_legend(figure)
        add_title(figure, title)
        add_notes(figure, [EEG])
    return figure


def _losses(axes: "Axes", series: Mapping[str, Series], loss: str) -> None:
    for key, look in LOSSES.items():
        draw(axes, series.get(key, {}), **{**look, "markersize": 2.5})
        between(axes, series, key, look["color"], limits=(0.0, None))
    axes.set(title="loss", ylabel=loss)


def _correlation(axes: "Axes", series: Mapping[str, Series], best: int) -> None:
    draw(axes, series.get("val/pearson", {}), label="model", color=VERMILLION, marker="s", markersize=2.5)
    for value in series.get("val/baseline_pearson", {}).values():
        axes.axhline(value, color="0.35", linestyle="--", label="linear baseline")
    axes.axvline(best, color=VERMILLION, linestyle=":", linewidth=0.9, label=f"chosen, epoch {best}")
    axes.set(title="validation", ylabel="Pearson's r, mean over recordings")


def _recordings(axes: "Axes", pairs: Mapping[str, tuple[float, float]]) -> None:
    axes.set(title=f"test: {len(pairs)} recordings", xlabel="r of the linear baseline", ylabel="r of the model")
    if not pairs:
        say_empty(axes, "no test recording has a defined r of both")
        return
    linear, model = zip(*pairs.values(), strict=True)
    low, high = min(*linear, *model), max(*linear, *model)
    pad = 0.05 * (high - low or 1)
    ends = (max(R[0], low - pad), min(R[1], high + pad))
    axes.plot(ends, ends, color="0.6", linewidth=0.9, linestyle="--")
    axes.plot(linear, model, "o", color=BLUE, alpha=0.6, markersize=3.5, clip_on=False)
    axes.set(xlim=ends, ylim=ends, aspect="equal")
