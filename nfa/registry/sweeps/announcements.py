"""Console lines about trials."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from nfa.console import stage
from nfa.registry.sweeps import trial_queue
from nfa.registry.sweeps.config import TuneConfig


def tell(study: optuna.Study, config: TuneConfig, title: str, slot: int) -> None:
    """Print how a trial has ended."""
    trial = trial_queue.latest(study.get_trials(deepcopy=False))[slot]
    seconds = f"{trial.duration.total_seconds():.1f} s" if trial.duration else ""
    best = "best" if any(one.number == trial.number for one in study.best_trials) and trial.params else ""
    told = trial.user_attrs
    what = point_text(trial_queue.parameters_of(trial)) or (
        f"{told['arm']}, seed {told['seed']}" if "arm" in told else ""
    )
    stage(f"{title} {slot}", "  ".join(filter(None, (_ended(config, trial), what, seconds, best))))


def _ended(config: TuneConfig, trial: FrozenTrial) -> str:
    state = trial_queue.state_of(trial)
    if state == "finished":
        return ", ".join(f"{key} {value:.5g}" for key, value in zip(config.keys, trial.values or (), strict=True))
    if state == "failed":
        return f"failed: {trial.user_attrs[trial_queue.ERROR].splitlines()[0]}"
    reported = trial.intermediate_values
    return state + (f" at {max(reported)} ({reported[max(reported)]:.5g})" if state == "pruned" and reported else "")


def point_text(point: Mapping[str, Any]) -> str:
    """Return parameters as one line.

    >>> point_text({"lr": 0.031234, "optimizer": "adam", "width": 64})
    'lr 0.03123, optimizer adam, width 64'
    """
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in point.items()
    )
