"""Gradient directions in the early, middle and late phase of training, and the changes between phases."""

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
    """Return means over the epochs of each phase, and changes between phases with 95 % bootstrap intervals.

    The bootstrap draws the same examples at every epoch, so each interval is one of the paired change.
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
    """Return the means of the series that are defined at all of these epochs."""
    keys = [name for name in SERIES if all(epoch in series.get(f"gradient/{name}", {}) for epoch in epochs)]
    return {name: float(np.mean([series[f"gradient/{name}"][epoch] for epoch in epochs])) for name in keys}


def _changes(run_id: str, series: Mapping[str, Series], before: Sequence[int], after: Sequence[int]) -> dict[str, Any]:
    first, second = _means(series, before), _means(series, after)
    draws = [
        np.mean([gradient_arrays.load(run_id, epoch, "draws") for epoch in part], axis=0) for part in (before, after)
    ]
    return {name: change(second[name] - first[name], draws[1] - draws[0], name) for name in first if name in second}


def change(value: float, draws: Array, name: str) -> dict[str, float]:
    """Return a difference with the interval of its bootstrap draws [series d], if all draws are defined."""
    of_series = draws[SERIES.index(name)]
    if not np.isfinite(of_series).all():
        return {"change": value}
    low, high = np.quantile(of_series, TAILS)
    return {"change": value, "low": float(low), "high": float(high)}
