"""Runs that are alike but for their seed, taken together: an arm of a comparison."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nfa.figures.training_analysis import Series
from nfa.maths.statistics import Interval, crossed_bootstrap, t_interval
from nfa.parameter_groups import ParameterGroups
from nfa.registry import tracking
from nfa.registry.analyses.seed_groups import groups
from nfa.registry.families.protocol import Score
from nfa.registry.families.registry import family


@dataclass(frozen=True)
class Arm:
    """Runs by their seed, in order: their series, and the `scores` of each, by what was scored apart (empty: none).

    `output` names the parameters of the part that ratios divide by, `built_in` is the factor that the model puts into
    the gradient ratio of its front; `failed` counts trainings that are not among them.
    """

    label: str
    seeds: list[int]
    series: list[Mapping[str, Series]]
    scores: list[Mapping[str, float]]
    output: tuple[str, ...] = ()
    failed: int = 0
    built_in: float = 1.0
    score: Score | None = None

    def mean(self, key: str) -> dict[int, float]:
        """Geometric mean over the runs of a positive series, by epoch; epochs that a run lacks are left out."""
        found = [one.get(key, {}) for one in self.series]
        epochs = sorted(set.intersection(*(set(one) for one in found)))
        usable = [epoch for epoch in epochs if all(one[epoch] > 0 for one in found)]
        return {e: math.exp(math.fsum(math.log(one[e]) for one in found) / len(found)) for e in usable}

    def averaged(self, keys: Sequence[str]) -> dict[str, dict[int, float]]:
        """Such means of several series."""
        return {key: mean for key in keys if (mean := self.mean(key))}


def arms_of(
    parts: Mapping[str, str],
    sources: Mapping[str, str],
    labels: Mapping[str, str] | None = None,
    failed: Mapping[str, int] = {},
) -> list[Arm]:
    """Arms in the order of their first runs; `parts` are analysis ids and `sources` ids of the runs, by run name.

    `labels` say which arm each is of; None = runs that differ in nothing but their seed are one, or where none do, each
    run is. `failed` are trainings of an arm that have no run among them.
    """
    configs = {name: tracking.config(source) for name, source in sources.items()}
    if labels:
        stated = {label: [name for name in parts if labels[name] == label] for label in labels.values()}
        found = [_arm(label, names, parts, sources, configs) for label, names in stated.items()]
        return [dataclasses.replace(arm, failed=failed.get(arm.label, 0)) for arm in found]
    grouped = groups(configs)
    if max(map(len, grouped.values())) < 2:
        grouped = {name: [name] for name in parts}
    return [_arm(label, names, parts, sources, configs) for label, names in grouped.items()]


def _arm(
    label: str,
    names: Sequence[str],
    parts: Mapping[str, str],
    sources: Mapping[str, str],
    configs: Mapping[str, Mapping[str, Any]],
) -> Arm:
    of_seed = {configs[name]["train"].get("seed", 0): name for name in reversed(names)}  # a run again is no second seed
    order = [of_seed[seed] for seed in sorted(of_seed)]
    score = family(configs[order[0]]["workload"]).score
    described = ParameterGroups(**tracking.get_json(parts[order[0]], "config.json")["groups"])
    return Arm(
        label,
        [configs[name]["train"].get("seed", 0) for name in order],
        [tracking.history(parts[name]) for name in order],
        [score.of(sources[name]) if score else {} for name in order],
        tuple(described.names[described.output]) if described.output else (),
        built_in=described.built_in,
        score=score,
    )


def score_interval(arm: Arm, *, seed: int) -> Interval | None:
    """Mean score over what is scored and over runs with its bootstrap interval; what any run has none of is left out.

    None where a training of the arm has failed: a mean without it would be of the lucky ones.
    """
    if arm.failed:
        return None
    table = _table(arm.scores, sorted(set.intersection(*(set(one) for one in arm.scores))))
    return crossed_bootstrap(table, seed=seed) if table.size > 1 else None


def score_difference(arm: Arm, first: Arm, *, seed: int) -> Interval | None:
    """Mean difference of scores of the same; runs are paired by their seeds where these are the same.

    None where a training of either has failed.
    """
    if arm.failed or first.failed:
        return None
    names = sorted(set.intersection(*(set(one) for one in (*arm.scores, *first.scores))))
    here, there = _table(arm.scores, names), _table(first.scores, names)
    if not names or min(here.size, there.size) < 2:
        return None
    if arm.seeds == first.seeds:
        return crossed_bootstrap(here - there, seed=seed)
    return crossed_bootstrap(here.mean(axis=0, keepdims=True) - there.mean(axis=0, keepdims=True), seed=seed)


def unscored(arms: Sequence[Arm]) -> list[str]:
    """What some trainings have a score of and others have not: left out of what is said of those arms."""
    tested = [set(one) for arm in arms for one in arm.scores if one]
    known = {name for names in tested for name in names}
    return sorted(name for name in known if not all(name in names for names in tested))


def _table(scores: Sequence[Mapping[str, float]], names: Sequence[str]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.array([[one[name] for name in names] for one in scores], dtype=np.float64)


def factor_interval(arm: Arm, first: Arm, key: str, epoch: int) -> Interval | None:
    """Factor of a positive series against another arm at an epoch: geometric mean and 95 % t-interval over the seeds
    that both have; None for fewer than two, and where one of them has no value above 0 in either."""
    pairs = [
        [one.series[one.seeds.index(seed)].get(key, {}).get(epoch, 0.0) for one in (arm, first)]
        for seed in sorted(set(arm.seeds) & set(first.seeds))
    ]
    if any(min(pair) <= 0 for pair in pairs):
        return None
    found = t_interval([math.log(here / there) for here, there in pairs])
    return found and Interval(math.exp(found.mean), math.exp(found.low), math.exp(found.high), found.n)
