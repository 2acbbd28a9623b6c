"""Means over trainings that differ only in their seed, in the run of their parent."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nfa.bookkeeping import is_bookkeeping
from nfa.figures.training_analysis import Series
from nfa.levels import OVER_SEEDS, at_step, is_beside
from nfa.maths.statistics import t_interval
from nfa.plain_text import counted
from nfa.registry import tracking
from nfa.registry.families.protocol import Family
from nfa.registry.tracking import TrackedRun

LEVELS = ("_chance", "_shared")  # beside values; they have means and no intervals
BAND = "95 % t-interval over seeds"
FEWEST = 3  # values with an interval: that of two is too wide to say anything


def means(runs: Sequence[Mapping[str, Series]]) -> dict[str, dict[int, float]]:
    """Return the mean over runs of every series at the steps that all runs have, and from three runs on, under the
    suffixes `OVER_SEEDS`, the ends of its 95 % t-interval and the number of runs.

    What every run has once, such as test/loss, has a mean also where it stands at another step in each: at the last of
    them. A key has no interval if a run has metrics of its own under these suffixes. Errors over examples and random
    directions have no means, as they say nothing of the spread over seeds.

    >>> means([{"val/loss": {0: 2.0, 1: 1.0}}, {"val/loss": {0: 4.0}}])
    {'val/loss': {0: 3.0}}
    """
    found: dict[str, dict[int, float]] = {}
    for key in sorted(set.intersection(*map(set, runs))):
        if is_bookkeeping(key) or (is_beside(key) and not key.endswith(LEVELS)):
            continue
        taken = any(f"{key}{end}" in run for end in OVER_SEEDS for run in runs)  # by metrics of the user
        for step, values in _by_step([run[key] for run in runs]).items():
            for suffix, value in _mean(values, interval=not (is_beside(key) or taken)).items():
                found.setdefault(f"{key}{suffix}", {})[step] = value
    return found


def _by_step(several: Sequence[Series]) -> dict[int, list[float]]:
    """Return the values of all series at the steps that they share."""
    if all(len(series) == 1 for series in several):
        return {max(max(series) for series in several): [value for series in several for value in series.values()]}
    return {step: [series[step] for series in several] for step in sorted(set.intersection(*map(set, several)))}


def _mean(values: Sequence[float], *, interval: bool) -> dict[str, float]:
    found = t_interval(values) if interval and len(values) >= FEWEST else None
    return dict(zip(("", *OVER_SEEDS), found, strict=True)) if found else {"": math.fsum(values) / len(values)}


def report(run: TrackedRun, family: Family, seeds: Sequence[int]) -> None:
    """Log the means over the trainings below a run, and draw them. A seed that has failed counts: what it lacks has no
    mean, because one over the others would be biased.
    """
    below = tracking.children(run.run_id, run.info.info.experiment_id)
    ids = {child.data.tags.get("nfa.variant"): child.info.run_id for child in below}
    every = tracking.histories(ids.values())
    series = means([every.get(ids.get(f"seed {seed}", ""), {}) for seed in seeds])
    for step in sorted(set().union(*series.values())):
        run.metrics.log(at_step(series, step), step)
    run.metrics.flush()
    if series:
        title = f"{family.title(tracking.config(run.run_id))}; {said(seeds)}"
        family.training.report_seeds(run, series, seeds, title)


def last_values(series: Mapping[str, Series], seeds: Sequence[int]) -> dict[str, Any]:
    """Return the content of a results.json: the last value of every mean, with what stands beside it, and its step."""
    steps = {key: max(of_key) for key, of_key in series.items() if not key.endswith(OVER_SEEDS)}
    ends = ("", *OVER_SEEDS)
    found = {
        key: {"step": step, **{f"mean{end}": series[key + end][step] for end in ends if key + end in series}}
        for key, step in steps.items()
    }
    return {"seeds": list(seeds), "last": found}


def said(seeds: Sequence[int]) -> str:
    """Return what a figure of means shows.

    >>> said([1, 2, 3])
    'mean of 3 seeds, bands: 95 % t-interval over seeds'
    """
    return f"mean of {counted(len(seeds), 'seed')}" + (f", bands: {BAND}" if len(seeds) >= FEWEST else "")
