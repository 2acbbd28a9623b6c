"""A study as a table of trials: the best ones, the Pareto front, and comparisons with fresh seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from scipy import stats

from nfa.maths.statistics import t_interval
from nfa.registry.sweeps import trial_queue
from nfa.registry.sweeps.arm_difference import ArmDifference
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.space import Axis, Range

LEAST = 10  # fewest finished trials for statements about all of them
DRAWS = 2000
EDGE = 0.05  # share of a range at either end


@dataclass(frozen=True)
class TrialRow:
    """One trial: its number in the study, counted from 0, and a value per objective if it has finished.

    `state` is "finished", "pruned", "failed" (diverged, or an error), "killed", "running" or "waiting". `intermediate`
    holds values of the first objective by step. `feasible` is true if every constraint holds.
    """

    number: int
    state: str
    parameters: Mapping[str, Any]
    values: tuple[float, ...] = ()
    intermediate: Mapping[int, float] = field(default_factory=dict)
    feasible: bool = True
    seconds: float | None = None
    run_id: str = ""
    error: str = ""


@dataclass(frozen=True)
class StudyTable:
    """A study: its objectives, axes and trials; for its figures, what the trials train on what, and with which loss."""

    name: str
    objectives: tuple[str, ...]
    maximise: tuple[bool, ...]
    axes: tuple[Axis, ...]
    rows: tuple[TrialRow, ...]
    subject: str = ""
    loss: str = ""


@dataclass(frozen=True)
class ConfirmedArm:
    """A point that was trained again: `values[objective][i]` for the i-th of `seeds`, None = not finished.

    All arms have the same seeds in the same order. `failed` lists seeds whose training diverged or ended in an error.
    """

    name: str
    parameters: Mapping[str, Any]
    values: tuple[tuple[float | None, ...], ...]
    seeds: tuple[int, ...]
    failed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Relation:
    """Spearman's correlation of two objectives over n trials, its 95 % interval, and the size of their Pareto front.

    Signs are chosen so that higher is better in both: a positive correlation means that the objectives agree, a
    negative one a trade-off.
    """

    correlation: float
    low: float
    high: float
    n: int
    front: int

    @property
    def statement(self) -> str:
        """The result in words."""
        if self.front == 1:
            return "one trial is best in both objectives, so there is no trade-off"
        if self.low <= 0 <= self.high:
            return "over all trials, there is no significant agreement or conflict between the objectives"
        return "what is good for one objective tends to be " + (
            "good for the other; only among the best trials do they conflict" if self.low > 0 else "bad for the other"
        )


def table_of(study: optuna.Study, config: TuneConfig) -> StudyTable:
    """Return the trials by their place in the study; a resumed trial counts once."""
    trials = trial_queue.latest(study.get_trials(deepcopy=False))
    return StudyTable(
        name=study.study_name,
        objectives=tuple(config.keys),
        maximise=tuple(objective.maximise for objective in config.objectives),
        axes=tuple(config.axes.values()),
        rows=tuple(_row(slot, trial) for slot, trial in trials.items()),
    )


def _row(slot: int, trial: optuna.trial.FrozenTrial) -> TrialRow:
    state = trial_queue.state_of(trial)
    return TrialRow(
        number=slot,
        state=state,
        parameters=trial_queue.parameters_of(trial),
        values=tuple(trial.values) if state == "finished" and trial.values else (),
        intermediate=dict(trial.intermediate_values),
        feasible=all(beyond <= 0 for beyond in trial.constraints.values()),
        seconds=trial.duration.total_seconds() if trial.duration else None,
        run_id=trial.user_attrs.get(trial_queue.RUN, ""),
        error=trial.user_attrs.get(trial_queue.ERROR, ""),
    )


def finished(table: StudyTable) -> list[TrialRow]:
    """Return the trials that have finished and satisfy every constraint, by number."""
    found = [row for row in table.rows if row.state == "finished" and row.feasible]
    return sorted(found, key=lambda row: row.number)


def best(table: StudyTable, objective: int = 0) -> TrialRow | None:
    """Return the best finished trial in one objective, the first of equal ones; None if none has finished."""
    sign = -1 if table.maximise[objective] else 1
    return min(finished(table), key=lambda row: sign * row.values[objective], default=None)


def number_of(table: StudyTable, parameters: Mapping[str, Any]) -> int | None:
    """Return the number of the first trial with these values on all axes, preferably a finished one, or None."""
    found = [
        row
        for row in table.rows
        if all(a.name in row.parameters and row.parameters[a.name] == parameters.get(a.name) for a in table.axes)
    ]
    return min(((row.state != "finished", row.number) for row in found), default=(False, None))[1]


def best_so_far(table: StudyTable, objective: int = 0) -> list[tuple[int, float]]:
    """Return the number of each finished trial with the best value up to it."""
    better = max if table.maximise[objective] else min
    found: list[tuple[int, float]] = []
    for row in finished(table):
        value = row.values[objective]
        found.append((row.number, better(value, found[-1][1]) if found else value))
    return found


def costs(table: StudyTable) -> np.ndarray:
    """Return the objectives of the finished trials [trials, objectives], with signs chosen so that less is better."""
    signs = [-1.0 if more else 1.0 for more in table.maximise]
    return np.array([row.values for row in finished(table)], dtype=float).reshape(-1, len(signs)) * signs


def at_edges(table: StudyTable, row: TrialRow) -> list[str]:
    """Return the axes on which a trial lies in the first or last twentieth of the range (in logarithms for log axes).

    Better values may lie beyond such an end. Ranges of whole numbers are treated in the same way.
    """
    ranges = [axis for axis in table.axes if isinstance(axis, Range)]
    return [axis.name for axis in ranges if _at_edge(axis, row.parameters.get(axis.name))]


def _at_edge(axis: Range, value: Any) -> bool:
    if value is None:
        return False
    low, high, place = (math.log(one) if axis.log else float(one) for one in (axis.low, axis.high, value))
    return min(place - low, high - place) < EDGE * (high - low)


def pareto_front(table: StudyTable) -> list[TrialRow]:
    """Return the finished trials that no other trial dominates, sorted by the first objective.

    Trials with equal values are either all on the front, or none of them is.
    """
    rows, cost = finished(table), costs(table)
    kept: list[int] = []
    for index in np.lexsort(cost.T[::-1]):  # a dominating trial comes before those that it dominates
        if not any((cost[other] <= cost[index]).all() and (cost[other] < cost[index]).any() for other in kept):
            kept.append(int(index))
    return sorted((rows[index] for index in kept), key=lambda row: (row.values[0], row.number))


def trade_off(table: StudyTable, *, draws: int = DRAWS, seed: int = 0) -> Relation | None:
    """Correlate the first two objectives, with a percentile bootstrap over trials.

    None for a single objective, fewer than 10 finished trials, or an objective that is constant.
    """
    if len(table.objectives) < 2 or len(finished(table)) < LEAST:
        return None
    goods = -costs(table)[:, :2]
    if np.ptp(goods, axis=0).min() == 0:
        return None
    drawn = np.random.default_rng(seed).integers(len(goods), size=(draws, len(goods)))
    found = _spearman(goods[drawn])
    low, high = np.quantile(found[np.isfinite(found)], [0.025, 0.975])
    together = _spearman(goods[None])[0]
    return Relation(float(together), float(low), float(high), len(goods), len(pareto_front(table)))


def _spearman(pairs: np.ndarray) -> np.ndarray:
    """Return Spearman's correlations of [draws, trials, 2]; not finite if one of the two is constant."""
    ranks = stats.rankdata(pairs, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.sqrt((ranks**2).sum(axis=1).prod(axis=1))
    products = ranks.prod(axis=2).sum(axis=1)
    found: np.ndarray = np.divide(products, norms, out=np.full(len(pairs), np.inf), where=norms > 0)
    return found


def confirmation(arms: Sequence[ConfirmedArm], maximise: Sequence[bool]) -> list[ArmDifference]:
    """Compare each later arm with the first in each objective: mean difference with a 95 % t-interval over seeds.

    Seeds that have not finished in both arms are left out; if a training has failed, there is no interval.
    """
    return [_difference(arm, arms[0], objective, more) for arm in arms[1:] for objective, more in enumerate(maximise)]


def _difference(arm: ConfirmedArm, first: ConfirmedArm, objective: int, more: bool) -> ArmDifference:
    paired = zip(arm.values[objective], first.values[objective], strict=True)
    found = [one - other for one, other in paired if one is not None and other is not None]
    failed = " and ".join(
        f"{len(one.failed)} of {len(one.seeds)} trainings of {one.name} failed" for one in (first, arm) if one.failed
    )
    return ArmDifference(arm.name, objective, None if failed else t_interval(found), len(found), more, failed)


def mean_of(arm: ConfirmedArm, objective: int) -> float | None:
    """Return the mean over the finished seeds; None if none has finished, or one has failed."""
    if arm.failed:
        return None
    values = [value for value in arm.values[objective] if value is not None]
    return math.fsum(values) / len(values) if values else None
