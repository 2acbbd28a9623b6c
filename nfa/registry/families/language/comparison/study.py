"""Compare ways to start an adapter: differences at equal steps and at equal compute."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from nfa.maths.statistics import Interval, crossed_bootstrap, t_interval

RANDOM = "random"
LEAST_SEEDS = 3  # fewest seeds for a verdict
SHORT = 0.98  # share of the other training's compute that is needed for a comparison at equal compute


@dataclass(frozen=True)
class FineTuning:
    """One fine-tuning: eval/loss and operations by evaluated step, and the cost of its start (None: unknown).

    `answers` holds, by step, one value per held-out question: its summed loss divided by the mean number of answer
    tokens, so that the mean over questions is eval/loss.
    """

    run_id: str
    seed: int
    losses: Mapping[int, float]
    operations: Mapping[int, float]
    answers: Mapping[int, Float64[np.ndarray, " q"]]
    start_operations: float | None

    @property
    def last(self) -> int:
        """The last step."""
        return max(self.losses)

    @property
    def total(self) -> float | None:
        """Operations of the start and of all steps."""
        return None if self.start_operations is None else self.start_operations + self.operations[self.last]

    def loss(self, of: str) -> float:
        """The "initial", "final" or "best" eval/loss."""
        return {"initial": self.losses[0], "final": self.losses[self.last], "best": min(self.losses.values())}[of]

    def step_at(self, spent: float) -> float:
        """Return the step at which start and training have cost this many operations, linear between evaluations."""
        steps = sorted(self.operations)
        costs = [(self.start_operations or 0.0) + self.operations[step] for step in steps]
        return float(np.interp(spent, costs, steps))

    def answers_at(self, step: float) -> Float64[np.ndarray, " q"]:
        """Return the loss of each question [q] at a step, interpolated linearly between evaluations."""
        before = max(each for each in self.answers if each <= step)
        after = min(each for each in self.answers if each >= step)
        share = (step - before) / (after - before) if after > before else 0.0
        between: Float64[np.ndarray, " q"] = (1 - share) * self.answers[before] + share * self.answers[after]
        return between

    def steps_to(self, target: float) -> float | None:
        """Return the step at which the held-out loss reaches `target`, linear between evaluations, or None."""
        steps = sorted(self.losses)
        for before, step in zip([steps[0], *steps], steps, strict=False):
            if self.losses[step] <= target:
                fall = self.losses[before] - self.losses[step]
                share = (self.losses[before] - target) / fall if fall > 0 else 1.0
                return before + share * (step - before)
        return None


@dataclass(frozen=True)
class StartArm:
    """Fine-tunings that differ only in their seed, by seed; `start` and `settings` describe them."""

    label: str
    start: str
    settings: str
    trained: Mapping[int, FineTuning]

    @property
    def last(self) -> int:
        """The last step."""
        return max(one.last for one in self.trained.values())

    @property
    def total(self) -> float | None:
        """The mean of total operations; None if one is unknown."""
        totals = [one.total for one in self.trained.values() if one.total is not None]
        return math.fsum(totals) / len(totals) if len(totals) == len(self.trained) else None

    def mean(self, of: str) -> float:
        """Return the mean over seeds of the "initial", "final" or "best" eval/loss."""
        return math.fsum(one.loss(of) for one in self.trained.values()) / len(self.trained)


class Look(NamedTuple):
    """The loss difference of two fine-tunings with the same seed, at given steps of each.

    `share` is the share of the total cost of `one` that was spent by then; None if not needed.
    """

    difference: float
    steps: tuple[float, float]
    share: float | None = None


@dataclass(frozen=True)
class LossDifference:
    """The loss of an arm minus that of another, by seed; negative is better."""

    interval: Interval | None
    mean: float
    by_seed: Mapping[int, Look]

    @property
    def seeds(self) -> int:
        """The number of common seeds."""
        return len(self.by_seed)

    @property
    def verdict(self) -> str:
        """The verdict in words; "better" and "worse" need an interval that excludes 0."""
        if self.interval is None or self.seeds < LEAST_SEEDS:
            return f"no verdict: {self.seeds} seed{'s' if self.seeds != 1 else ''} in common, {LEAST_SEEDS} are needed"
        if self.interval.low > 0:
            return "worse"
        return "better" if self.interval.high < 0 else "cannot be told apart"


def partner(arm: StartArm, arms: Sequence[StartArm]) -> StartArm | None:
    """Return the arm of random adapters with the same settings and number of steps, or None."""
    return next((other for other in _random(arm, arms) if other.last == arm.last), None)


def partner_in_compute(arm: StartArm, arms: Sequence[StartArm]) -> StartArm | None:
    """Return the arm of random adapters with the same settings whose compute is closest to that of `arm`."""
    total = arm.total
    if total is None:
        return None
    possible = [other for other in _random(arm, arms) if at_equal_compute(arm, other) is not None]
    return min(possible, key=lambda other: abs((other.total or 0.0) - total), default=None)


def _random(arm: StartArm, arms: Sequence[StartArm]) -> list[StartArm]:
    return [other for other in arms if other.start == RANDOM and other.settings == arm.settings and other is not arm]


def pairs(arm: StartArm, other: StartArm) -> list[tuple[FineTuning, FineTuning]]:
    """Return pairs of fine-tunings with the same seed, ordered by seed."""
    return [(arm.trained[seed], other.trained[seed]) for seed in sorted(set(arm.trained) & set(other.trained))]


def at_end(arm: StartArm, other: StartArm, *, seed: int = 0) -> LossDifference | None:
    """Compare two arms at their last steps; None without a common seed."""
    return _difference([(one, two, (one.last, two.last), None) for one, two in pairs(arm, other)], seed)


def at_equal_compute(arm: StartArm, other: StartArm, *, seed: int = 0) -> LossDifference | None:
    """Compare two arms, by seed, at the total compute of the cheaper one, including the cost of starts.

    Losses are interpolated linearly between evaluations. None if the cost of a start is unknown, or if `other` has
    spent less than 98 % of the compute of `arm` for any seed.
    """
    found = [_at_budget(one, two) for one, two in pairs(arm, other)]
    known = [look for look in found if look is not None]
    return _difference(known, seed) if len(known) == len(found) else None


Compared = tuple[FineTuning, FineTuning, tuple[float, float], float | None]


def _at_budget(one: FineTuning, two: FineTuning) -> Compared | None:
    if one.total is None or two.total is None or two.total < SHORT * one.total:
        return None
    budget = min(one.total, two.total)
    return one, two, (one.step_at(budget), two.step_at(budget)), budget / one.total


def _difference(found: Sequence[Compared], seed: int) -> LossDifference | None:
    if not found:
        return None
    table = np.stack([one.answers_at(steps[0]) - two.answers_at(steps[1]) for one, two, steps, _ in found])
    interval = crossed_bootstrap(table, seed=seed) if len(found) > 1 else None
    looks = {
        one.seed: Look(float(row.mean()), steps, share)
        for row, (one, _, steps, share) in zip(table, found, strict=True)
    }
    return LossDifference(interval, float(table.mean()), looks)


def paired(arm: StartArm, other: StartArm, of: str) -> Interval | None:
    """Return the difference of "initial" or "best" losses with a t-interval over seeds; None for fewer than two."""
    values = [one.loss(of) - two.loss(of) for one, two in pairs(arm, other)]
    return t_interval(values)


@dataclass(frozen=True)
class StepsToTarget:
    """Steps of two arms until their held-out loss first reaches a target, by seed; None = not within `horizon`.

    `difference` compares `restricted` steps; negative is faster. It is None for a single seed, and if no training has
    reached the target.
    """

    horizon: int
    by_seed: Mapping[int, tuple[float | None, float | None]]
    difference: Interval | None

    @property
    def counts(self) -> tuple[int, int]:
        """The number of seeds of each arm that have reached the target."""
        one, two = (sum(pair[arm] is not None for pair in self.by_seed.values()) for arm in (0, 1))
        return one, two

    @property
    def means(self) -> tuple[float, float]:
        """The restricted mean steps of each arm."""
        one, two = (mean_restricted([pair[arm] for pair in self.by_seed.values()], self.horizon) for arm in (0, 1))
        return one, two


def reached(arm: StartArm, other: StartArm, target: float) -> StepsToTarget | None:
    """Compare the steps to a target, within the steps that every training has made; None without a common seed.

    A seed that has not reached the target at the horizon counts with the horizon, in both arms; leaving it out would
    bias the mean. Such restricted means need no model of later steps, and are lower bounds of the true means if some
    seeds never reach the target (Royston, Parmar 2013, BMC Medical Research Methodology 13:152).
    """
    both = pairs(arm, other)
    if not both:
        return None
    horizon = min(trained.last for pair in both for trained in pair)
    found = {one.seed: (_within(one, target, horizon), _within(two, target, horizon)) for one, two in both}
    apart = [restricted(here, horizon) - restricted(there, horizon) for here, there in found.values()]
    somewhere = any(steps is not None for pair in found.values() for steps in pair)
    return StepsToTarget(horizon, found, t_interval(apart) if somewhere else None)


def _within(trained: FineTuning, target: float, horizon: int) -> float | None:
    steps = trained.steps_to(target)
    return steps if steps is not None and steps <= horizon else None


def restricted(steps: float | None, horizon: float) -> float:
    """Return the steps to a target, or the horizon if it was not reached before."""
    return float(horizon if steps is None else min(steps, horizon))


def mean_restricted(steps: Sequence[float | None], horizon: float) -> float:
    """Return the mean of `restricted` steps."""
    return math.fsum(restricted(each, horizon) for each in steps) / len(steps)
