"""Whether one way to start an adapter trains better than another: differences at equal steps and at equal compute."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from nfa.maths.statistics import Interval, crossed_bootstrap, t_interval

RANDOM = "random"
LEAST_SEEDS = 3  # for a verdict
SHORT = 0.98  # of the compute of the other that a training must have spent to be compared at equal compute
LONG = 1.1  # up to which its end is taken; of a longer one its last evaluation within the other's compute


@dataclass(frozen=True)
class Trained:
    """One fine-tuning: eval/loss and operations spent by evaluated step, and what its start has cost (None: unknown).

    `answers` holds, by step, a value for each held-out question whose mean is eval/loss: its summed loss, divided by
    the mean number of answer tokens.
    """

    run_id: str
    seed: int
    losses: Mapping[int, float]
    operations: Mapping[int, float]
    answers: Mapping[int, Float64[np.ndarray, " q"]]
    start_operations: float | None

    @property
    def last(self) -> int:
        """Its last step."""
        return max(self.losses)

    @property
    def total(self) -> float | None:
        """Operations of its start and of all its steps."""
        return None if self.start_operations is None else self.start_operations + self.operations[self.last]

    def within(self, budget: float) -> int | None:
        """The step at which it has spent a budget: its last one, if that is near, else the last within it.

        None where all of it has spent less than 98 % of the budget, or what its start has cost is unknown.
        """
        if self.total is None or self.total < SHORT * budget or self.start_operations is None:
            return None
        if self.total <= LONG * budget:
            return self.last
        spent = {step: self.start_operations + value for step, value in self.operations.items()}
        return max((step for step, value in spent.items() if value <= budget), default=None)

    def steps_to(self, target: float) -> float | None:
        """Steps after which the held-out loss is `target` or less, linear between evaluations; None if it never is."""
        steps = sorted(self.losses)
        for before, step in zip([steps[0], *steps], steps, strict=False):
            if self.losses[step] <= target:
                fall = self.losses[before] - self.losses[step]
                share = (self.losses[before] - target) / fall if fall > 0 else 1.0
                return before + share * (step - before)
        return None


@dataclass(frozen=True)
class Arm:
    """Fine-tunings that differ in nothing but their seed, by seed; `start` says how they begin, `settings` the rest."""

    label: str
    start: str
    settings: str
    trained: Mapping[int, Trained]

    @property
    def last(self) -> int:
        """Its last step."""
        return max(one.last for one in self.trained.values())

    @property
    def total(self) -> float | None:
        """Mean of the operations spent in all; None where one is not known."""
        totals = [one.total for one in self.trained.values() if one.total is not None]
        return math.fsum(totals) / len(totals) if len(totals) == len(self.trained) else None

    def mean(self, of: str) -> float:
        """Mean over the seeds of the "initial", "final" or "best" eval/loss."""
        return math.fsum(_value(one, of) for one in self.trained.values()) / len(self.trained)


@dataclass(frozen=True)
class Difference:
    """A loss minus that of the other arm, seed by seed: below 0 is better. `steps`: of one and of the other."""

    interval: Interval | None
    mean: float
    seeds: int
    steps: tuple[int, int]

    @property
    def verdict(self) -> str:
        """In words; only an interval that excludes 0 says anything."""
        if self.interval is None or self.seeds < LEAST_SEEDS:
            return f"no verdict: {self.seeds} seed{'s' if self.seeds != 1 else ''} in common, {LEAST_SEEDS} are needed"
        if self.interval.low > 0:
            return "worse"
        return "better" if self.interval.high < 0 else "cannot be told apart"


def partner(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The arm of random adapters with the same settings, trained for as many steps; None where there is none."""
    return next((other for other in _random(arm, arms) if other.last == arm.last), None)


def partner_in_compute(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The arm of random adapters with the same settings that ends nearest to where `arm` has spent its compute."""
    total = arm.total
    if total is None:
        return None
    possible = [other for other in _random(arm, arms) if at_equal_compute(arm, other) is not None]
    return min(possible, key=lambda other: abs((other.total or 0.0) - total), default=None)


def _random(arm: Arm, arms: Sequence[Arm]) -> list[Arm]:
    return [other for other in arms if other.start == RANDOM and other.settings == arm.settings and other is not arm]


def pairs(arm: Arm, other: Arm) -> list[tuple[Trained, Trained]]:
    """Fine-tunings of both with the same seed, in order."""
    return [(arm.trained[seed], other.trained[seed]) for seed in sorted(set(arm.trained) & set(other.trained))]


def at_end(arm: Arm, other: Arm, *, seed: int = 0) -> Difference | None:
    """At their last steps, which are equal if they were trained for as many; None without a common seed."""
    return _difference([(one, one.last, two, two.last) for one, two in pairs(arm, other)], seed)


def at_equal_compute(arm: Arm, other: Arm, *, seed: int = 0) -> Difference | None:
    """At the end of `arm`, and where `other` has spent as many operations in all, what its start has cost included.

    None where that is unknown, or `other` was not trained so far.
    """
    found = []
    for one, two in pairs(arm, other):
        step = None if one.total is None else two.within(one.total)
        if step is None:
            return None
        found.append((one, one.last, two, step))
    return _difference(found, seed)


def _difference(found: Sequence[tuple[Trained, int, Trained, int]], seed: int) -> Difference | None:
    if not found:
        return None
    table = np.stack([one.answers[here] - two.answers[there] for one, here, two, there in found])
    interval = crossed_bootstrap(table, seed=seed) if len(found) > 1 else None
    return Difference(interval, float(table.mean()), len(found), (found[0][1], found[0][3]))


def paired(arm: Arm, other: Arm, of: str) -> Interval | None:
    """Difference of the "initial" or "best" losses, with a t-interval over the seeds; None for fewer than two."""
    values = [_value(one, of) - _value(two, of) for one, two in pairs(arm, other)]
    return t_interval(values)


def _value(trained: Trained, of: str) -> float:
    losses = trained.losses
    return {"initial": losses[0], "final": losses[trained.last], "best": min(losses.values())}[of]


def faster(arm: Arm, other: Arm, target: float) -> Interval | None:
    """Steps of `other` to the target over those of `arm`: geometric mean and t-interval over the seeds that reach it.

    Seeds with 0 steps (a start at the target) are left out; None for fewer than two.
    """
    logs = []
    for one, two in pairs(arm, other):
        here, there = one.steps_to(target), two.steps_to(target)
        if here and there:
            logs.append(math.log(there / here))
    found = t_interval(logs)
    return found and Interval(math.exp(found.mean), math.exp(found.low), math.exp(found.high), found.n)
