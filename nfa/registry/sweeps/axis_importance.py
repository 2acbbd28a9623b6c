"""Share of an objective's variance due to each searched axis, compared with the share expected by chance."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nfa.registry.sweeps.space import Axis, Choice
from nfa.registry.sweeps.study_table import LEAST, StudyTable, finished

TREES = 24
REPEATS = 4  # permutations of each axis
RESAMPLES = 199
LEVEL = 0.05


@dataclass(frozen=True)
class Importance:
    """An axis' share of the variance, its 95 % interval, and the 95th percentile of the same estimate under chance.

    `p` is (1 + number of chance values at least as large) / (1 + number of chance values); `mattered` means p ≤ 0.05.
    """

    value: float
    low: float
    high: float
    null: float
    p: float
    mattered: bool


def conventions(resamples: int = RESAMPLES, seed: int = 0) -> dict[str, str | int]:
    """Return the definitions of the numbers, for a report."""
    return {
        "importance": "increase of the squared prediction error when the axis is permuted among the trials, divided by "
        "twice the objective's variance: 1 if the axis alone determines the objective, about 0 if it has no effect. "
        "It is not clipped, so it may be negative. Interactions count for each of their axes, so the values need not "
        "add up to 1",
        "prediction": "bagged regression trees; each trial is predicted by the trees not grown on it (Breiman 2001)",
        "axes": "log axes enter as logarithms, choices as their index in the list",
        "interval": "95 %, percentile bootstrap over trials",
        "chance": "the same estimate with the objective's values shuffled among the trials. An axis mattered if at "
        "most 5 % of the shuffled estimates reach its value: about one in twenty axes without effect seems to matter",
        "adaptive": "adaptive samplers try good regions more often; the shares refer to the variance among the trials "
        "made, not over the whole space",
        "trees": TREES,
        "permutations": REPEATS,
        "resamples": resamples,
        "seed": seed,
    }


def importances(
    table: StudyTable, objective: int = 0, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Importance]:
    """Return the importance of each axis over the finished trials, in the order of the table's axes.

    It is (E‖y − f(x with the axis permuted)‖² − E‖y − f(x)‖²) / (2 Var y), where f predicts each trial from the others
    (Breiman 2001), halved so that it estimates the axis' total Sobol' effect. `why_no_importances` tells which axes are
    missing and why. Raises `ValueError` for fewer than 19 `resamples`.
    """
    if resamples < round(1 / LEVEL) - 1:
        raise ValueError(f"{resamples} resamples cannot give p = {LEVEL}; at least 19 are needed")
    absent = why_no_importances(table, objective)
    axes = sorted((axis for axis in table.axes if axis.name not in absent), key=lambda axis: axis.name)
    if not axes:
        return {}
    inputs = np.array([[_number(axis, row.parameters[axis.name]) for axis in axes] for row in finished(table)])
    targets = np.array([row.values[objective] for row in finished(table)], dtype=float)
    found = dict(zip((axis.name for axis in axes), _estimates(inputs, targets, resamples, seed), strict=True))
    return {axis.name: found[axis.name] for axis in table.axes if axis.name in found}


def why_no_importances(table: StudyTable, objective: int = 0) -> dict[str, str]:
    """Return, for each axis without an importance, the reason in words."""
    rows = finished(table)
    if len(rows) < LEAST:
        return {axis.name: f"{len(rows)} finished trials; {LEAST} are needed" for axis in table.axes}
    if len({row.values[objective] for row in rows}) == 1:
        return {axis.name: f"{table.objectives[objective]} was equal in all trials" for axis in table.axes}
    found = {}
    for axis in table.axes:
        values = [row.parameters[axis.name] for row in rows if axis.name in row.parameters]
        if len(values) < len(rows):
            found[axis.name] = f"{len(rows) - len(values)} of the {len(rows)} finished trials do not have it"
        elif all(value == values[0] for value in values):
            found[axis.name] = f"it was {values[0]} in all finished trials"
    return found


def _number(axis: Axis, value: Any) -> float:
    if isinstance(axis, Choice):
        return float(axis.values.index(value) if value in axis.values else len(axis.values))
    return float(np.log(value)) if axis.log else float(value)


def _estimates(inputs: np.ndarray, targets: np.ndarray, resamples: int, seed: int) -> list[Importance]:
    random = np.random.default_rng(seed)
    scaled = (targets - targets.mean()) / targets.std()
    trials = np.arange(len(targets))
    values = _shares(inputs, scaled, trials, random)
    drawn = [_draw(scaled, random) for _ in range(resamples)]
    ends = np.quantile([_shares(inputs[d], scaled[d], d, random) for d in drawn], [0.025, 0.975], axis=0)
    null = np.array([_shares(inputs, random.permutation(scaled), trials, random) for _ in range(resamples)])
    edge = np.sort(null, axis=0)[-int(LEVEL * (resamples + 1) + 1e-9)]
    p = (1 + (null >= values).sum(axis=0)) / (1 + resamples)
    return [
        Importance(float(value), float(low), float(high), float(chance), float(one), bool(value > chance))
        for value, low, high, chance, one in zip(values, *ends, edge, p, strict=True)
    ]


def _draw(targets: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw trials with replacement; repeat if no tree can be grown without one of them, or all values are equal."""
    while True:
        drawn = random.integers(len(targets), size=len(targets))
        if len(set(drawn)) > 3 and np.ptp(targets[drawn]) > 0:
            return drawn


def _shares(inputs: np.ndarray, targets: np.ndarray, trials: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the share of each column of [trials, axes]; copies of a trial (`trials`) never predict each other."""
    columns = inputs.shape[1]
    copies = np.repeat(inputs[None], 1 + columns * REPEATS, axis=0).astype(np.float32)
    for index in range(1, len(copies)):
        column = (index - 1) // REPEATS
        copies[index, :, column] = random.permutation(copies[index, :, column])
    squares = _unseen(copies, targets, trials, random)
    rises: np.ndarray = squares[1:].reshape(columns, REPEATS).mean(axis=1) - squares[0]
    return rises / (2 * float(targets.var()))


def _unseen(copies: np.ndarray, targets: np.ndarray, trials: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the mean squared error for each copy of the inputs; each trial is predicted by trees not grown on it."""
    import sklearn  # late, because its import changes the environment and draws random numbers
    from sklearn.tree import DecisionTreeRegressor

    count = len(targets)
    sums, seen = np.zeros(copies.shape[:2]), np.zeros(count)
    ties = np.random.RandomState(int(random.integers(2**31)))  # between splits that are equally good
    with sklearn.config_context(skip_parameter_validation=True):
        for _ in range(TREES):
            bag = random.integers(count, size=count)
            tree = DecisionTreeRegressor(random_state=ties)
            tree.fit(copies[0][bag], targets[bag], check_input=False)
            outside = np.bincount(trials[bag], minlength=count)[trials] == 0
            sums += tree.predict(copies.reshape(-1, copies.shape[2]), check_input=False).reshape(sums.shape) * outside
            seen += outside
    known = seen > 0
    errors: np.ndarray = ((sums[:, known] / seen[known] - targets[known]) ** 2).mean(axis=1)
    return errors
