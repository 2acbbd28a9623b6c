"""Gradient flow: maps of the network's parts over epochs, and the ratios between its front and its output."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nfa.figures.relation_grid import colours
from nfa.figures.style import add_legend, add_title, axis_label, epoch_axis, panels, plain_numbers, style
from nfa.figures.training_analysis import Series, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAPS = {
    "grad_rms": "RMS of the gradient",
    "weight_change": "relative weight change since epoch 0",
    "update_ratio": "relative update of the last step",
}
CURVES = {
    "flow/front_output_ratio": "gradient ratio, front / output",
    "flow/back_output_ratio": "gradient ratio, back / output",
    "flow/front_output_update_ratio": "update ratio, front / output",
    "flow/grad_norm": "gradient norm",
}
SPREAD = 3  # the last epoch divided by the middle one
LINES = ("-", "--", ":")  # distinguishable where lines coincide
THRESHOLDS = {0.01: "vanishing", 0.1: "weak", 0.5: "strong"}
MOST_ROWS = 40


def flow_map(series: Mapping[str, Series], groups: Sequence[str], *, title: str = "", unit: str = "epoch") -> "Figure":
    """Draw a map for each measure, with groups from the input (top) to the output (bottom) and epochs to the right.

    Colours are logarithmic; values that are undefined or were not measured stay white.
    """
    drawn = {name: label for name, label in MAPS.items() if any(series.get(f"flow/{g}/{name}") for g in groups)}
    height = 1.4 + 0.2 * min(len(groups), MOST_ROWS)
    figure, places = panels(max(1, len(drawn)), columns=max(1, len(drawn)), width=3.9, height=height)
    with style():
        for place, (name, label) in zip(places, drawn.items(), strict=False):
            _map(figure, place, {group: series.get(f"flow/{group}/{name}", {}) for group in groups}, unit)
            place.set_title(label.replace("epoch", unit))
        for place in places[1:]:
            place.tick_params(labelleft=False)  # the first panel names the groups
        add_title(figure, title)
    return figure


def _map(figure: "Figure", axes: "Axes", values: Mapping[str, Series], unit: str) -> None:
    from matplotlib.colors import LogNorm

    epochs = sorted(set().union(*values.values()))
    table = np.array([[of_group.get(epoch, np.nan) for epoch in epochs] for of_group in values.values()])
    table[~(table > 0)] = np.nan
    if np.isfinite(table).any():
        low, high = np.nanmin(table), np.nanmax(table)
        shown = axes.imshow(table, aspect="auto", cmap="viridis", norm=LogNorm(low, max(high, low * 1.01)))
        plain_numbers(figure.colorbar(shown, ax=axes).ax.yaxis)
    step = -(-len(values) // MOST_ROWS)
    axes.set_yticks(range(0, len(values), step), list(values)[::step], fontsize=7)
    every = -(-len(epochs) // 8)
    axes.set_xticks(range(0, len(epochs), every), [str(epoch) for epoch in epochs[::every]])
    axes.set_xlabel(axis_label(unit))
    axes.grid(visible=False)


def flow_curves(
    runs: Mapping[str, Mapping[str, Series]],
    roles: Mapping[str, str | None],
    *,
    title: str = "",
    unit: str = "epoch",
    built_in: float | None = 1.0,
) -> "Figure":
    """Draw a logarithmic panel for each ratio and for the gradient norm, with one line per run; `roles` name the parts.

    Thresholds of the gradient ratio are multiplied by the factor that is built into the model; None, where runs differ
    in this factor, draws no thresholds.
    """
    drawn = {key: label for key, label in CURVES.items() if any(series.get(key) for series in runs.values())}
    figure, places = panels(max(1, len(drawn)), columns=min(2, max(1, len(drawn))), width=4.2, height=2.8)
    with style():
        for place, (key, label) in zip(places, drawn.items(), strict=False):
            for index, ((name, series), colour) in enumerate(zip(runs.items(), colours(len(runs)), strict=True)):
                values = {epoch: value for epoch, value in series.get(key, {}).items() if value > 0}
                look = {"color": colour, "linestyle": LINES[index % len(LINES)], "marker": "o", "markersize": 3}
                draw(place, values, label=name if len(runs) > 1 else None, **look)
            place.set(title=_named(label, roles), yscale="log")
            plain_numbers(place.yaxis)
            if key == "flow/front_output_ratio" and built_in is not None:
                _thresholds(place, built_in)
            _epochs(place, sorted(set().union(*(series.get(key, {}) for series in runs.values()))), unit)
        if len(runs) > 1:
            add_legend(figure)
        add_title(figure, title)
    return figure


def _epochs(axes: "Axes", epochs: Sequence[int], unit: str) -> None:
    """Set up an epoch axis, logarithmic if most checkpoints would crowd at its left end."""
    from matplotlib.ticker import NullLocator

    epoch_axis(axes, None, axis_label(unit))
    if len(epochs) > 4 and epochs[-1] > SPREAD * max(1, epochs[len(epochs) // 2]):
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xticks(epochs, [str(epoch) for epoch in epochs], minor=False)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(epochs[0] - 0.2, 1.15 * epochs[-1])


def _named(label: str, roles: Mapping[str, str | None]) -> str:
    for role, group in roles.items():
        label = label.replace(role, f"{group}" if group else role)
    return label


def _thresholds(axes: "Axes", built_in: float) -> None:
    low, high = axes.get_ylim()
    for value, name in ((built_in * limit, name) for limit, name in THRESHOLDS.items()):
        if low < value < high:
            axes.axhline(value, color="0.5", linestyle="--", linewidth=0.8)
            side: dict[str, Any] = {"ha": "left", "va": "bottom" if name == "strong" else "top"}
            axes.text(0.01, value, name, transform=axes.get_yaxis_transform(), fontsize=7, color="0.35", **side)


def intervals(values: Mapping[str, tuple[float, float, float]], *, xlabel: str, zero: bool = False) -> "Figure":
    """Draw a row for each label: a mean and its interval (mean, low, high), the first at the top; `zero` adds a line at
    0.
    """
    beside = 0.08 * max(map(len, values), default=0)  # inches for the labels
    figure, places = panels(1, columns=1, width=5.6 + beside, height=1.0 + 0.32 * len(values))
    with style():
        for row, (mean, low, high) in enumerate(values.values()):
            places[0].errorbar(mean, row, xerr=[[mean - low], [high - mean]], fmt="o", color=f"C{row % 10}", capsize=3)
        places[0].set_yticks(range(len(values)), list(values))
        places[0].set(ylim=(len(values) - 0.5, -0.5), xlabel=xlabel)
        if zero:
            places[0].axvline(0, color="0.3", linewidth=0.8)
    return figure
