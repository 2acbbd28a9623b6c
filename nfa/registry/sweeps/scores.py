"""Evaluate objectives and constraints on a run's metric series."""

import math
import operator
from collections.abc import Mapping, Sequence

from nfa.levels import is_beside
from nfa.registry.sweeps.objectives import Constraint, StudyObjective, keys_of

Series = Mapping[str, Mapping[int, float]]
HOLDS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def by_step(series: Series, pattern: str) -> dict[int, float]:
    """Return the series of a key; for a glob, the mean over its keys at the steps that all of them have."""
    found = [series[key] for key in keys_of(pattern, list(series))]
    if not found:
        return {}
    steps = sorted(set.intersection(*(set(one) for one in found)))
    return {step: math.fsum(one[step] for one in found) / len(found) for step in steps}


def score(series: Series, objective: StudyObjective) -> float | None:
    """Return the objective of a run, finished or not; None if no step has a value."""
    values = list(by_step(series, objective.key).values())
    return reduced(values, objective) if values else None


def reduced(values: Sequence[float], objective: StudyObjective) -> float:
    """Return the last value, the best one, or the mean of the last K (of all, if there are fewer)."""
    if objective.reduction == "best":
        return max(values) if objective.maximise else min(values)
    kept = values[-objective.last :]
    return math.fsum(kept) / len(kept)


def excess(series: Series, constraint: Constraint) -> float | None:
    """Return how far the last value exceeds the bound: above 0 only if the constraint is broken; None without a value.

    A value on the bound of a strict constraint exceeds it by the smallest positive number.
    """
    values = list(by_step(series, constraint.key).values())
    if not values:
        return None
    beyond = values[-1] - constraint.bound if constraint.sign.startswith("<") else constraint.bound - values[-1]
    if HOLDS[constraint.sign](values[-1], constraint.bound):
        return min(beyond, 0.0)
    return max(beyond, math.ulp(0.0))


def means(series: Sequence[Series]) -> dict[str, dict[int, float]]:
    """Return the mean over runs of every series, at the steps that all runs have.

    For two or more runs, `<key>_se` is its standard error s / √n, where s² is the unbiased variance. It takes the place
    of the errors of the runs; levels of chance and of shared weights have means alone.
    """
    found: dict[str, dict[int, float]] = {}
    for key in sorted(set.intersection(*(set(one) for one in series))):
        if key.endswith("_se") and len(series) > 1:
            continue
        steps = sorted(set.intersection(*(set(one[key]) for one in series)))
        for step in steps:
            values = [one[key][step] for one in series]
            mean = math.fsum(values) / len(values)
            found.setdefault(key, {})[step] = mean
            if len(values) > 1 and not is_beside(key):
                variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
                found.setdefault(f"{key}_se", {})[step] = math.sqrt(variance / len(values))
    return found
