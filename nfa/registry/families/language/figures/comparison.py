"""Fine-tunings that start differently: their losses by steps and by compute, and the differences."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nfa.figures.notes import add_notes, say_empty
from nfa.figures.relation_grid import colours
from nfa.figures.style import add_legend, add_title, epoch_axis, panels, style
from nfa.registry.families.language.figures.fine_tuning import LORA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 4.3
BANDS = "Lines: means over seeds; bands: from the lowest to the highest seed."
OVER = "95 % intervals over seeds and held-out questions"
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
    shades = colours(len(arms))
    with style():
        power = _power([x for arm in arms for seed in arm.by_operations for x in seed])
        unit = 10.0**power
        for index, arm in enumerate(arms):
            _curve(places[0], arm.by_step, shades[index], arm.label)
            _curve(places[1], [{x / unit: y for x, y in seed.items()} for seed in arm.by_operations], shades[index])
        epoch_axis(places[0], None, "optimizer step")
        places[0].set(title="by steps", ylabel="held-out loss, nats per answer token")
        places[1].set(title="by compute, including the start", xlabel=f"$10^{{{power}}}$ floating-point operations")
        if not any(arm.by_operations for arm in arms):
            say_empty(places[1], "the operations are not known for all seeds of any start")
        _differences(places[2], dict(zip([arm.label for arm in arms], shades, strict=True)), steps, compute)
        add_legend(figure)
        add_title(figure, title)
        add_notes(figure, [BANDS, LORA])
    return figure


def _power(operations: Sequence[float]) -> int:
    """Return the power of 1,000 in which numbers of operations are between 1 and 1,000.

    >>> _power([3e9, 6e9]), _power([]), _power([5e12])
    (9, 0, 12)
    """
    largest = max(operations, default=1.0)
    return 3 * int(np.log10(max(largest, 1.0)) // 3)


def _curve(axes: "Axes", seeds: Sequence[Mapping[Any, float]], color: Any, label: str = "") -> None:
    """Mean and range over the seeds, each linear between its own points, from the last first to the first last one."""
    if not seeds:
        return
    first, last = max(min(seed) for seed in seeds), min(max(seed) for seed in seeds)
    places = sorted({x for seed in seeds for x in seed if first <= x <= last})
    values = np.array([np.interp(places, sorted(seed), [seed[x] for x in sorted(seed)]) for seed in seeds])
    axes.plot(places, values.mean(axis=0), color=color, marker="o", markersize=3, label=label)
    axes.fill_between(places, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15)


def _differences(axes: "Axes", shades: Mapping[str, Any], steps: Differences, compute: Differences) -> None:
    drawn = [label for label in shades if label in steps or label in compute]
    for row, label in enumerate(drawn):
        for found, shift, mark in ((steps, -0.12, "o"), (compute, 0.12, "D")):
            if label in found:
                mean, low, high = found[label]
                reach = [[mean - low], [high - mean]]
                axes.errorbar(mean, row + shift, xerr=reach, fmt=mark, color=shades[label], capsize=3, markersize=5)
    for mark, name in (("o", "at equal steps"), ("D", "at equal compute")):
        axes.plot([], [], mark, color="0.4", label=name)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_yticks(range(len(drawn)), [textwrap.fill(label, 16) for label in drawn], fontsize=8)
    if not drawn:
        say_empty(axes, "an interval needs at least two seeds of a start and of random")
    axes.set(title=f"final loss minus random's,\n{OVER}", xlabel="nats per answer token; negative is better")
    axes.set_ylim(max(1, len(drawn)) - 0.5, -0.5)
