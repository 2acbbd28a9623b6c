"""What a parent run logs to compare its children, so that MLflow's UI has something to show for the parent alone.

The UI sorts groups of charts by name: a hyphen puts this one before those of sites, which may begin with a digit.
"""

import math
from collections.abc import Mapping, Sequence

from nfa.figures.training_analysis import Series
from nfa.registry import tracking
from nfa.registry.families.protocol import Family
from nfa.registry.tracking import TrackedRun
from nfa.relations import TRAINING

GROUP = "- comparison"
MOST = 12  # children; the charts of more would bury the others


def log_comparison(parent: TrackedRun, family: Family, children: Mapping[str, Sequence[str]]) -> None:
    """Log the metrics that matter most as series <GROUP>/<metric>: <child> of the parent.

    These are the family's objective and quality, and the mean over sites of AGOP/NFM.

    Args:
        parent: The parent run.
        family: The family of the children.
        children: The ids of runs by what sets them apart; several, such as seeds, count as their mean.
    """
    metrics = [family.objective, *([family.quality.key] if family.quality else [])]
    for label, run_ids in [*children.items()][:MOST]:
        found = [_headline(series, metrics) for series in tracking.histories(run_ids).values()]
        for name in dict.fromkeys(name for of_run in found for name in of_run):
            for step, value in _mean([of_run.get(name, {}) for of_run in found]).items():
                parent.metrics.log({f"{GROUP}/{name.replace('/', ' ')}: {label}": value}, step)


def _headline(series: Mapping[str, Series], metrics: Sequence[str]) -> dict[str, Series]:
    """Return the series of the metrics that a run has, and the mean over its sites."""
    sites = [of_site for key, of_site in series.items() if key.endswith(f"/{TRAINING[0]}")]
    own = {key: series[key] for key in dict.fromkeys(metrics) if key in series}
    return {**own, **({f"{TRAINING[0]} over sites": _mean(sites)} if sites else {})}


def _mean(several: Sequence[Series]) -> dict[int, float]:
    """Return the mean at every step that all series have."""
    steps = sorted(set.intersection(*(set(one) for one in several)))
    return {step: math.fsum(one[step] for one in several) / len(several) for step in steps}
