"""Fine-tunings that start differently: their losses by steps and by compute, and the differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nfa.figures.style import add_legend, add_title, epoch_axis, panels, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 4.3
Differences = Mapping[str, tuple[float, float, float]]  # mean, low and high by label


@dataclass(frozen=True)
class Curves:
    """eval/loss of one arm for each seed, by step and by operations spent (empty if unknown)."""

    label: str
    by_step: Sequence[Mapping[int, float]]
    by_operations: Sequence[Mapping[float, float]]


def comparison(arms: Sequence[Curves], steps: Differences, compute: Differences, *, title: str = "") -> "Figure":
    """Draw losses by optimizer step and by operations (including the start), and differences from random.

    Lines are means over the seeds, bands their range, both only where every seed has been. `steps` and `compute` are
    mean, low and high of the final difference by label, at as many steps and at as many operations.
    """
    figure, places = panels(3, columns=3, width=WIDE, height=3.2)
    with style():
        for index, arm in enumerate(arms):
            _curve(places[0], arm.by_step, f"C{index}", arm.label)
            _curve(places[1], [{x / 1e12: y for x, y in seed.items()} for seed in arm.by_operations], f"C{index}")
        epoch_axis(places[0], None, "optimizer step")
        places[0].set(title="by steps", ylabel="held-out loss, nats per answer token")
        places[1].set(title="by compute, including the start", xlabel="10¹² floating-point operations")
        _differences(places[2], arms, steps, compute)
        add_title(figure, title)
        add_legend(figure)
    return figure


def _curve(axes: "Axes", seeds: Sequence[Mapping[Any, float]], color: str, label: str = "") -> None:
    """Mean and range over the seeds, each linear between its own points, from the last first to the first last one."""
    if not seeds:
        return
    first, last = max(min(seed) for seed in seeds), min(max(seed) for seed in seeds)
    places = sorted({x for seed in seeds for x in seed if first <= x <= last})
    values = np.array([np.interp(places, sorted(seed), [seed[x] for x in sorted(seed)]) for seed in seeds])
    axes.plot(places, values.mean(axis=0), color=color, marker="o", markersize=3, label=label)
    axes.fill_between(places, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15)


def _differences(axes: "Axes", arms: Sequence[Curves], steps: Differences, compute: Differences) -> None:
    drawn = [arm.label for arm in arms if arm.label in steps or arm.label in compute]
    colours = {arm.label: f"C{index}" for index, arm in enumerate(arms)}
    for row, label in enumerate(drawn):
        for found, shift, mark in ((steps, -0.12, "o"), (compute, 0.12, "D")):
            if label in found:
                mean, low, high = found[label]
                reach = [[mean - low], [high - mean]]
                axes.errorbar(mean, row + shift, xerr=reach, fmt=mark, color=colours[label], capsize=3, markersize=5)
    for mark, name in (("o", "at equal steps"), ("D", "at equal compute")):
        axes.plot([], [], mark, color="0.4", label=name)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_yticks(range(len(drawn)), ["" for _ in drawn])
    axes.set(title="final loss minus random's, 95 % intervals", xlabel="nats per answer token; negative is better")
    axes.set_ylim(max(1, len(drawn)) - 0.5, -0.5)
