"""Gradient directions beside their chance levels: as JSON, and in a sentence for each series."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nfa.figures.gradient_series import LABELS
from nfa.figures.training_analysis import Series
from nfa.studies.direction_series import WITH_CHANCE

FAR = 2.0  # standard deviations from the level


def levels(series: Mapping[str, Series], epochs: Sequence[int]) -> dict[str, dict[str, list[Any]]]:
    """Return chance levels and their standard deviations: lists over epochs, of the series that have any."""
    found = {}
    for end in ("chance", "chance_sd"):
        given = {name: series.get(f"gradient/{name}_{end}", {}) for name in WITH_CHANCE}
        found[end] = {name: [of_name.get(epoch) for epoch in epochs] for name, of_name in given.items() if of_name}
    return found


def verdicts(series: Mapping[str, Series], unit: str) -> Iterator[str]:
    """Yield a sentence for each series with a chance level: how its last value lies to the level.

    >>> key = "gradient/silhouette"
    >>> list(verdicts({key: {60: 0.18}, f"{key}_chance": {60: -0.01}, f"{key}_chance_sd": {60: 0.002}}, "epoch"))
    ['silhouette of the classes at epoch 60: above chance (0.18; chance -0.01 ± 0.002)']
    """
    for key in (f"gradient/{name}" for name in WITH_CHANCE):
        deviations = series.get(f"{key}_chance_sd", {})
        if deviations:
            last = max(deviations)
            value, level, deviation = series[key][last], series[f"{key}_chance"][last], deviations[last]
            numbers = f"{value:.3g}; chance {level:.3g} ± {deviation:.2g}"
            yield f"{LABELS[key]} at {unit} {last}: {_place(value - level, deviation)} chance ({numbers})"


def _place(beyond: float, deviation: float) -> str:
    return "above" if beyond > FAR * deviation else "below" if beyond < -FAR * deviation else "not apart from"
