"""The metrics that matter most once more, in the group of charts that comes first in MLflow's UI.

Children of a parent log theirs, which one chart can show together; the parent logs those of each child, because the UI
hides children behind it.
"""

import math
from collections.abc import Mapping, Sequence

from nfa.bookkeeping import COMPARISON
from nfa.figures.training_analysis import Series
from nfa.registry import tracking
from nfa.registry.families.protocol import Family
from nfa.registry.tracking import TrackedRun
from nfa.relations import TRAINING

MOST = 12  # children; the charts of more would bury the others


def log_headline(run: TrackedRun, family: Family) -> None:
    """Log the family's objective and quality, and the mean over sites of AGOP/NFM, under `COMPARISON`.

    Args:
        run: A run that has logged all else; of several seeds, their means.
        family: Its family.
    """
    run.metrics.flush()
    for name, of_name in _headline(tracking.history(run.run_id), family).items():
        _log(run, name, of_name)


def log_comparison(parent: TrackedRun, family: Family, children: Mapping[str, Sequence[str]]) -> None:
    """Log the same of each child to the parent, as <metric>: <child>.

    Args:
        parent: The parent run.
        family: The family of the children.
        children: The ids of runs by what sets them apart; several, such as seeds, count as their mean.
    """
    for label, run_ids in [*children.items()][:MOST]:
        found = [_headline(series, family) for series in tracking.histories(run_ids).values()]
        for name in dict.fromkeys(name for of_run in found for name in of_run):
            _log(parent, f"{name}: {label}", _mean([of_run.get(name, {}) for of_run in found]))


def _log(run: TrackedRun, name: str, series: Series) -> None:
    for step, value in series.items():
        run.metrics.log({f"{COMPARISON}{name.replace('/', ' ')}": value}, step)


def _headline(series: Mapping[str, Series], family: Family) -> dict[str, Series]:
    """Return the series of these metrics that a run has, and the mean over its sites."""
    metrics = [family.objective, *([family.quality.key] if family.quality else [])]
    sites = [of_site for key, of_site in series.items() if key.endswith(f"/{TRAINING[0]}")]
    own = {key: series[key] for key in dict.fromkeys(metrics) if key in series}
    return {**own, **({f"{TRAINING[0]} over sites": _mean(sites)} if sites else {})}


def _mean(several: Sequence[Series]) -> dict[int, float]:
    """Return the mean at every step that all series have."""
    steps = sorted(set.intersection(*(set(one) for one in several)))
    return {step: math.fsum(one[step] for one in several) / len(several) for step in steps}
