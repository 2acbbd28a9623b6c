"""Samplers, which choose the next trial, and pruners, which stop trials early."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nfa.registry.sweeps.space import Axis, Choice, Space, Value
from nfa.registry.sweeps.trial_queue import slot_of
from nfa.seeding import whole_number

SAMPLERS = {"tpe": TPESampler, "gp": GPSampler, "random": RandomSampler, "grid": RandomSampler}
STARTUP = 5  # trials that must finish before others are compared with them
WARMUP = 1  # steps of a run before it is compared with others


class SeededBySlot(BaseSampler):
    """Seeds the generator for each trial, so that a continued study does not repeat its draws.

    Random points depend only on the seed and the trial's place in the study, not on the number of processes.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed
        self.inner: BaseSampler = RandomSampler(seed=0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        drawn = whole_number(self.seed, f"sampler/{slot_of(trial)}") % 2**32
        self.inner = SAMPLERS[self.name](seed=drawn)
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.inner.after_trial(study, trial, state, values)


def pruner(name: str) -> BasePruner:
    """Return the pruner of that name."""
    if name == "median":
        return MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=WARMUP)
    return HyperbandPruner(min_resource=1, reduction_factor=3) if name == "hyperband" else NopPruner()


def suggest(trial: optuna.Trial, space: Space) -> Mapping[str, Value]:
    """Return the trial's point of the space."""
    return {name: _suggested(trial, axis) for name, axis in space.items()}


def _suggested(trial: optuna.Trial, axis: Axis) -> Value:
    if isinstance(axis, Choice):
        chosen = trial.suggest_categorical(axis.name, axis.values)
        assert chosen is not None
        return chosen
    if axis.whole:
        return trial.suggest_int(axis.name, int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return trial.suggest_float(axis.name, axis.low, axis.high, log=axis.log, step=axis.step)
