"""An arm of a comparison: runs that differ only in their seed."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nfa.figures.training_analysis import Series
from nfa.maths.statistics import Interval, crossed_bootstrap, t_interval
from nfa.parameter_groups import ParameterGroups
from nfa.registry import tracking
from nfa.registry.analyses.seed_groups import groups
from nfa.registry.families.assessment import Score
from nfa.registry.families.registry import family

FEWEST = 3  # runs with a band: that of two is too wide to say anything


@dataclass(frozen=True)
class Arm:
    """Runs by seed, in order, with their series and `scores` (by recording, for example; empty if there are none).

    `output` names the parameters of the group that the ratios divide by. `built_in` is the factor by which the model
    itself scales the gradient ratio of its front. `failed` counts the trainings that failed and are not included.
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
        """Return the geometric mean of a positive series over the runs, by epoch; skip epochs that any run lacks."""
        found = [one.get(key, {}) for one in self.series]
        epochs = sorted(set.intersection(*(set(one) for one in found)))
        usable = [epoch for epoch in epochs if all(one[epoch] > 0 for one in found)]
        return {e: math.exp(math.fsum(math.log(one[e]) for one in found) / len(found)) for e in usable}

    def averaged(self, keys: Sequence[str]) -> dict[str, dict[int, float]]:
        """Return these means for several series, and from three runs on, under <key>_lo and <key>_hi, the ends of their
        95 % t-intervals over the logarithms.
        """
        found: dict[str, dict[int, float]] = {}
        for key in keys:
            if mean := self.mean(key):
                found[key] = mean
                for epoch, (low, high) in self._ends(key, mean).items():
                    found.setdefault(f"{key}_lo", {})[epoch] = low
                    found.setdefault(f"{key}_hi", {})[epoch] = high
        return found

    def _ends(self, key: str, epochs: Iterable[int]) -> dict[int, tuple[float, float]]:
        if len(self.series) < FEWEST:
            return {}
        found = {epoch: t_interval([math.log(one[key][epoch]) for one in self.series]) for epoch in epochs}
        return {epoch: (math.exp(of.low), math.exp(of.high)) for epoch, of in found.items() if of}


def arms_of(
    parts: Mapping[str, str],
    sources: Mapping[str, str],
    labels: Mapping[str, str] | None = None,
    failed: Mapping[str, int] = {},
) -> list[Arm]:
    """Group runs into arms, in the order of their first runs; `parts` and `sources` map run names to ids.

    `parts` holds ids of analyses and `sources` ids of the analysed runs. `labels` names the arm of each run; None
    groups runs that differ only in their seed, or, if there are none, makes every run an arm. `failed` counts the
    failed trainings of each arm.
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
    of_seed = {configs[name]["train"].get("seed", 0): name for name in reversed(names)}  # each seed counts once
    order = [of_seed[seed] for seed in sorted(of_seed)]
    score = family(configs[order[0]]["workload"]).score
    described = ParameterGroups(**tracking.get_json(parts[order[0]], "config.json")["groups"])
    return Arm(
        label,
        [configs[name]["train"].get("seed", 0) for name in order],
        list(tracking.histories(parts[name] for name in order).values()),
        [score.of(sources[name]) if score else {} for name in order],
        tuple(described.names[described.output]) if described.output else (),
        built_in=described.built_in,
        score=score,
    )


def score_interval(arm: Arm, *, seed: int) -> Interval | None:
    """Return the mean score with its bootstrap interval; items that lack a score in any run are omitted.

    None if a training of the arm has failed: a mean over the others would be biased towards successful seeds.
    """
    if arm.failed:
        return None
    table = _table(arm.scores, sorted(set.intersection(*(set(one) for one in arm.scores))))
    return crossed_bootstrap(table, seed=seed) if table.size > 1 else None


def score_difference(arm: Arm, first: Arm, *, seed: int) -> Interval | None:
    """Return the mean difference of scores of the same items; runs are paired by seed if both arms have the same seeds.

    None if a training of either arm has failed.
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
    """Return the items that have a score in some trainings only; they are omitted from all means."""
    tested = [set(one) for arm in arms for one in arm.scores if one]
    known = {name for names in tested for name in names}
    return sorted(name for name in known if not all(name in names for names in tested))


def _table(scores: Sequence[Mapping[str, float]], names: Sequence[str]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.array([[one[name] for name in names] for one in scores], dtype=np.float64)


def factor_interval(arm: Arm, first: Arm, key: str, epoch: int) -> Interval | None:
    """Return the factor of a positive series against another arm at an epoch, with its 95 % t-interval.

    The factor is a geometric mean over the seeds that both arms have. None for fewer than two such seeds, and if a
    value of either arm is missing or not above 0.
    """
    pairs = [
        [one.series[one.seeds.index(seed)].get(key, {}).get(epoch, 0.0) for one in (arm, first)]
        for seed in sorted(set(arm.seeds) & set(first.seeds))
    ]
    if any(min(pair) <= 0 for pair in pairs):
        return None
    found = t_interval([math.log(here / there) for here, there in pairs])
    return found and Interval(math.exp(found.mean), math.exp(found.low), math.exp(found.high), found.n)
