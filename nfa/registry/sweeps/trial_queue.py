"""The trials of a study as tickets: each is enqueued once, taken by one process, and enqueued again if that is lost."""

import datetime
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from nfa.registry import tracking
from nfa.registry.signals import shielded
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.space import Space, Value
from nfa.registry.sweeps.storage import SILENCE, retry_callback
from nfa.seeding import whole_number

SLOT, RUN, PROCESS, ERROR = "slot", "run_id", "process", "error"


def slot_of(trial: FrozenTrial | optuna.Trial) -> int:
    """Return the trial's place in the study, which stays the same when it is enqueued again."""
    return int(trial.user_attrs[SLOT])


def fill(study: optuna.Study, config: TuneConfig) -> int:
    """Enqueue the tickets that are missing up to `n_trials`: known points first, then those of the grid or open ones.

    Returns the total number of trials: `n_trials`, or the number of grid points.
    """
    there = {slot_of(trial) for trial in study.get_trials(deepcopy=False)}
    points = grid(config) if config.sampler == "grid" else config.points
    total = min(config.n_trials, len(points)) if config.sampler == "grid" else config.n_trials
    for slot in range(total):
        if slot in there:
            continue
        if slot < len(points):
            study.enqueue_trial(points[slot], user_attrs={SLOT: slot})
        else:
            study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={SLOT: slot}))
    return total


def grid(config: TuneConfig) -> list[dict[str, Value]]:
    """Return every combination of the listed values: known points first, the rest in a random order by the seed."""
    every = combinations(config.axes)
    known = [point for point in config.points if point in every]
    rest = [point for point in every if point not in known]
    order = np.random.default_rng(whole_number(config.seed, "grid")).permutation(len(rest))
    return [*known, *(rest[place] for place in order)]


def combinations(axes: Space) -> list[dict[str, Value]]:
    """Return points with every combination of the axes' listed values."""
    values = [axis.listed or () for axis in axes.values()]
    return [dict(zip(axes, each, strict=True)) for each in itertools.product(*values)]


def put_back(study: optuna.Study, trial: FrozenTrial) -> None:
    """Mark a lost trial as failed and enqueue it again with its run, unless another process has already done so."""
    with shielded():
        try:
            study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            return
        retry_callback()(study, trial)


def put_back_lost(study: optuna.Study, unspoken: dict[int, float]) -> None:
    """Enqueue again the trials of processes of this host that no longer exist, and trials without an owner.

    `unspoken` remembers when this process has first seen a running trial without an owner, by its own clock.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if process := trial.user_attrs.get(PROCESS):
            lost = tracking.life_of(process) is tracking.Life.GONE
        else:
            now = time.monotonic()
            lost = now - unspoken.setdefault(trial.number, now) > SILENCE
        if lost:
            put_back(study, trial)
    optuna.storages.fail_stale_trials(study)  # trials of other hosts, by missing heartbeats on the database's clock


def latest(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Return the trials by slot, in order; for a slot that was enqueued again, the last trial."""
    return dict(sorted((slot_of(trial), trial) for trial in trials))


def state_of(trial: FrozenTrial) -> str:
    """Return finished, pruned, failed (diverged, or an error), killed, running or waiting."""
    if trial.state in (TrialState.PRUNED, TrialState.FAIL) and ERROR in trial.user_attrs:
        return "failed"
    names = {
        TrialState.COMPLETE: "finished",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "killed",
        TrialState.RUNNING: "running",
        TrialState.WAITING: "waiting",
    }
    return names[trial.state]


def counts(trials: Mapping[int, FrozenTrial]) -> dict[str, int]:
    """Return the number of trials in each state that occurs."""
    states = [state_of(trial) for trial in trials.values()]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def errors(trials: Mapping[int, FrozenTrial]) -> list[str]:
    """Return the errors of failed trials, in the order in which they ended."""
    failed = [trial for trial in trials.values() if state_of(trial) == "failed"]
    failed.sort(key=lambda trial: trial.datetime_complete or datetime.datetime.max)
    return [str(trial.user_attrs[ERROR]) for trial in failed]


def parameters_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return the parameters of a trial; for a waiting trial, those that are already fixed."""
    return dict(trial.params or trial.system_attrs.get("fixed_params", {}))
