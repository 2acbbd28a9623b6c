"""Gradient directions in the early, middle and late phase, and how much changes between them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nfa.figures.gradient_series import PHASES
from nfa.figures.training_analysis import Series
from nfa.registry.analyses import gradient_arrays
from nfa.registry.analyses.gradient_arrays import Array
from nfa.registry.tracking.sources import DONE
from nfa.studies.direction_series import SERIES

TAILS = (0.025, 0.975)


def phases(run_id: str, series: Mapping[str, Series]) -> dict[str, Any]:
    """Means over the epochs of each phase, and changes from phase to phase with 95 % bootstrap intervals.

    The same examples are drawn at every epoch, so an interval is that of the change itself.
    """
    found = {
        name: [epoch for epoch in sorted(series[DONE]) if low <= epoch <= high] for name, (low, high) in PHASES.items()
    }
    held = {name: epochs for name, epochs in found.items() if epochs}
    content: dict[str, Any] = {name: {"epochs": epochs, **_means(series, epochs)} for name, epochs in held.items()}
    for before, after in zip(list(held)[:-1], list(held)[1:], strict=True):
        content[f"{before} to {after}"] = _changes(run_id, series, held[before], held[after])
    return content


def _means(series: Mapping[str, Series], epochs: Sequence[int]) -> dict[str, float]:
    """Of the series that are defined at all of the epochs."""
    keys = [name for name in SERIES if all(epoch in series.get(f"gradient/{name}", {}) for epoch in epochs)]
    return {name: float(np.mean([series[f"gradient/{name}"][epoch] for epoch in epochs])) for name in keys}


def _changes(run_id: str, series: Mapping[str, Series], before: Sequence[int], after: Sequence[int]) -> dict[str, Any]:
    first, second = _means(series, before), _means(series, after)
    draws = [
        np.mean([gradient_arrays.load(run_id, epoch, "draws") for epoch in part], axis=0) for part in (before, after)
    ]
    return {name: change(second[name] - first[name], draws[1] - draws[0], name) for name in first if name in second}


def change(value: float, draws: Array, name: str) -> dict[str, float]:
    """A difference with the interval of its bootstrap draws [series d], where all are defined."""
    of_series = draws[SERIES.index(name)]
    if not np.isfinite(of_series).all():
        return {"change": value}
    low, high = np.quantile(of_series, TAILS)
    return {"change": value, "low": float(low), "high": float(high)}
