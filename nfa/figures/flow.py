"""Gradient flow: maps of the network's parts over epochs, and the ratios between its front and its output."""

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nfa.figures.bands import cut
from nfa.figures.notes import add_notes, say_empty
from nfa.figures.relation_grid import colours
from nfa.figures.style import add_legend, add_title, axis_label, epoch_axis, panels, plain_numbers, site_label, style
from nfa.figures.training_analysis import Series, between, draw
from nfa.relations import Limits

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
THRESHOLDS = {0.01: "vanishing below", 0.1: "weak below", 0.5: "strong above"}
MOST_ROWS = 40
WIDE = 28  # letters of a map's title
RMS = "RMS: root mean square over the part's weights"
OF_STEPS = {
    "update_ratio": "update",
    "front_output_update_ratio": "update ratio",
    "grad_norm": "gradient norm",
}  # what the optimizer steps of the training have logged
RATIOS = "Ratios of root mean squares over the weights of each part"


def flow_map(series: Mapping[str, Series], groups: Sequence[str], *, title: str = "", unit: str = "epoch") -> "Figure":
    """Draw a map for each measure, with groups from the input (top) to the output (bottom) and epochs to the right.

    Colours are logarithmic; values that are undefined or were not measured stay white, which is said below the maps.
    """
    drawn = {name: label for name, label in MAPS.items() if any(series.get(f"flow/{g}/{name}") for g in groups)}
    height = 1.4 + 0.2 * min(len(groups), MOST_ROWS)
    figure, places = panels(max(1, len(drawn)), columns=max(1, len(drawn)), width=3.9, height=height)
    with style():
        for place, (name, label) in zip(places, drawn.items(), strict=False):
            _map(figure, place, {group: series.get(f"flow/{group}/{name}", {}) for group in groups}, unit)
            place.set_title(textwrap.fill(label.replace("epoch", unit), WIDE))
        for place in places[1:]:
            place.tick_params(labelleft=False)  # the first panel names the groups
        if not drawn:
            say_empty(places[0], "nothing is measured at any checkpoint")
        add_title(figure, title)
        step = -(-len(groups) // MOST_ROWS)
        some = f"One in {step} of {len(groups)} parts is named." if step > 1 else ""
        keys = [f"flow/{g}/{name}" for g in groups for name in drawn]
        add_notes(figure, [_white(series, keys), _before_steps([series], keys, unit), some, RMS])
    return figure


def _white(series: Mapping[str, Series], keys: Sequence[str]) -> str:
    """Return what white cells mean, if there are any."""
    of_measure: dict[str, set[int]] = {}
    for key in keys:
        of_measure.setdefault(key.rpartition("/")[2], set()).update(series.get(key, {}))
    every = ((key, step) for key in keys for step in of_measure[key.rpartition("/")[2]])
    return "White: zero, undefined or not measured." if any(not series.get(k, {}).get(at) for k, at in every) else ""


def _before_steps(runs: Collection[Mapping[str, Series]], keys: Iterable[str], unit: str) -> str:
    """Return why what is measured in optimizer steps has no value at the start, if a figure begins there."""
    given = [key for key in keys if any(series.get(key) for series in runs)]
    starts = {key for key in given if any(0 in series.get(key, {}) for series in runs)}
    lacking = [key for key in given if key not in starts]
    named = dict.fromkeys(OF_STEPS[key.rpartition("/")[2]] for key in lacking if key.rpartition("/")[2] in OF_STEPS)
    if not starts or not named:
        return ""
    return f"No {' and no '.join(named)} at {unit} 0: no optimizer step has been taken yet."


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
    axes.set_yticks(range(0, len(values), step), [site_label(group) for group in values][::step], fontsize=7)
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
    band: str = "",
) -> "Figure":
    """Draw a logarithmic panel for each ratio and for the gradient norm, with one line per run; `roles` name the parts.

    Thresholds of the gradient ratio are multiplied by the factor that is built into the model; None, where runs differ
    in this factor, draws no thresholds. Where <key>_lo and <key>_hi exist, the band between them is labelled `band`.
    """
    drawn = {key: label for key, label in CURVES.items() if any(series.get(key) for series in runs.values())}
    figure, places = panels(max(1, len(drawn)), columns=min(2, max(1, len(drawn))), width=4.2, height=2.8)
    epochs = sorted(set().union(*(series.get(key, {}) for series in runs.values() for key in drawn)))
    with style():
        for place, (key, label) in zip(places, drawn.items(), strict=False):
            _lines(place, runs, key)
            place.set(title=_named(label, roles))
            plain_numbers(place.yaxis)
            if key == "flow/front_output_ratio" and built_in is not None:
                _thresholds(place, built_in)
            _epochs(place, epochs, unit)
            if not any(value > 0 for series in runs.values() for value in series.get(key, {}).values()):
                say_empty(place, "zero or undefined at every checkpoint")
        if not drawn:
            say_empty(places[0], "no ratio is defined at any checkpoint")
        banded = any(series.get(f"{key}_lo") for series in runs.values() for key in drawn)
        if banded:
            places[0].fill_between([], [], color="0.5", alpha=0.3, linewidth=0, label=band)
        if banded or len(runs) > 1:
            add_legend(figure)
        add_title(figure, title)
        factor = "factors that differ between models" if built_in is None else f"the factor {built_in:.3g}"
        built = "." if built_in == 1 else f"; {factor} of the scale of gradients is built in."
        add_notes(figure, [f"{RATIOS}{built}", _before_steps(runs.values(), drawn, unit)])
    return figure


def _lines(place: "Axes", runs: Mapping[str, Mapping[str, Series]], key: str) -> None:
    """Draw a line for each run on a logarithmic axis, and the bands around those that are means."""
    shades = colours(len(runs))
    for index, (name, series) in enumerate(runs.items()):
        values = {epoch: value for epoch, value in series.get(key, {}).items() if value > 0}
        look = {"color": shades[index], "linestyle": LINES[index % len(LINES)], "marker": "o", "markersize": 3}
        draw(place, values, label=name if len(runs) > 1 else None, **look)
    place.set(yscale="log")
    for series, colour in zip(runs.values(), shades, strict=True):
        between(place, series, key, colour)


def _epochs(axes: "Axes", epochs: Sequence[int], unit: str) -> None:
    """Set up an epoch axis, logarithmic if most checkpoints would crowd at its left end."""
    from matplotlib.ticker import NullLocator

    epoch_axis(axes, None, axis_label(unit))
    if len(epochs) > 4 and epochs[-1] > SPREAD * max(1, epochs[len(epochs) // 2]):
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xticks(epochs, [str(epoch) for epoch in epochs], minor=False)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(epochs[0] - 0.2, 1.15 * epochs[-1])
    elif len(epochs) > 1:
        margin = 0.05 * (epochs[-1] - epochs[0])
        axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)


def _named(label: str, roles: Mapping[str, str | None]) -> str:
    for role, group in roles.items():
        label = label.replace(role, site_label(group) if group else role)
    return textwrap.fill(label, 2 * WIDE)


def _thresholds(axes: "Axes", built_in: float) -> None:
    low, high = axes.get_ylim()
    for value, name in ((built_in * limit, name) for limit, name in THRESHOLDS.items()):
        if low < value < high:
            axes.axhline(value, color="0.5", linestyle="--", linewidth=0.8)
            look: dict[str, Any] = {"ha": "left", "va": "center", "fontsize": 7, "color": "0.35"}
            axes.text(1.01, value, name.replace(" ", "\n"), transform=axes.get_yaxis_transform(), **look)


def intervals(
    values: Mapping[str, tuple[float, float, float]],
    *,
    xlabel: str,
    title: str = "",
    limits: Limits | None = None,
    zero: bool = False,
) -> "Figure":
    """Draw a row for each label: a mean and its interval (mean, low, high), the first at the top.

    Intervals end at the limits of the quantity; `zero` adds a line at 0.
    """
    beside = 0.08 * max(map(len, values), default=0)  # inches for the labels
    figure, places = panels(1, columns=1, width=5.6 + beside, height=1.0 + 0.32 * len(values))
    with style():
        for row, (mean, *ends) in enumerate(values.values()):
            low, high = cut(ends[0], ends[1], limits)
            places[0].errorbar(mean, row, xerr=[[mean - low], [high - mean]], fmt="o", color=f"C{row % 10}", capsize=3)
        places[0].set_yticks(range(len(values)), list(values))
        places[0].set(ylim=(len(values) - 0.5, -0.5), xlabel=xlabel)
        if zero:
            places[0].axvline(0, color="0.3", linewidth=0.8)
        add_title(figure, title)
    return figure
