"""How much of an objective's variance each searched axis accounts for, and whether chance would give as much."""

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
    """An axis' share of the variance, its 95 % interval, and the 95th percentile of the same number by chance.

    `p` is (1 + number of chance values at least as large) / (1 + their number), and the axis `mattered` if p ≤ 0.05.
    """

    value: float
    low: float
    high: float
    null: float
    p: float
    mattered: bool


def conventions(resamples: int = RESAMPLES, seed: int = 0) -> dict[str, str | int]:
    """What the numbers mean, for a report."""
    return {
        "importance": "rise of the squared error of prediction when an axis is permuted among the trials, over twice "
        "the objective's variance: 1 if the axis alone decides, about 0 if it does nothing; unclipped, so it may be "
        "below 0. Interactions count for each of their axes, so values need not add up to 1",
        "prediction": "bagged regression trees, each trial by the trees that have not seen it (Breiman 2001)",
        "axes": "log axes as logarithms, choices as their place in the list",
        "interval": "95 %, percentile bootstrap over trials",
        "chance": "the same estimate with the objective's values shuffled among the trials; an axis mattered if at "
        "most 5 % of these reach its value: of axes that do nothing, about one in twenty will be said to matter",
        "adaptive": "samplers that learn from earlier trials look more often where it is good; the shares are of the "
        "variance among the trials that were made, not of the whole space",
        "trees": TREES,
        "permutations": REPEATS,
        "resamples": resamples,
        "seed": seed,
    }


def importances(
    table: StudyTable, objective: int = 0, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Importance]:
    """By axis, over the finished trials, in the order of the table's axes; absent as `why_no_importances` says.

    (E‖y − f(x with the axis permuted)‖² − E‖y − f(x)‖²) / 2 Var y, f predicting each trial from others: Breiman 2001,
    halved so that it estimates the total effect (Sobol') of the axis. 19 `resamples` or more, else `ValueError`.
    """
    if resamples < round(1 / LEVEL) - 1:
        raise ValueError(f"{resamples} resamples cannot give p = {LEVEL}; 19 are the fewest")
    absent = why_no_importances(table, objective)
    axes = sorted((axis for axis in table.axes if axis.name not in absent), key=lambda axis: axis.name)
    if not axes:
        return {}
    inputs = np.array([[_number(axis, row.parameters[axis.name]) for axis in axes] for row in finished(table)])
    targets = np.array([row.values[objective] for row in finished(table)], dtype=float)
    found = dict(zip((axis.name for axis in axes), _estimates(inputs, targets, resamples, seed), strict=True))
    return {axis.name: found[axis.name] for axis in table.axes if axis.name in found}


def why_no_importances(table: StudyTable, objective: int = 0) -> dict[str, str]:
    """By axis, in words, why it has no importance; an axis that has one is absent."""
    rows = finished(table)
    if len(rows) < LEAST:
        return {axis.name: f"{len(rows)} finished trials; {LEAST} are needed" for axis in table.axes}
    if len({row.values[objective] for row in rows}) == 1:
        return {axis.name: f"{table.objectives[objective]} was the same in all trials" for axis in table.axes}
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
    """Trials drawn with replacement; again where no tree could be grown without one, or all values are equal."""
    while True:
        drawn = random.integers(len(targets), size=len(targets))
        if len(set(drawn)) > 3 and np.ptp(targets[drawn]) > 0:
            return drawn


def _shares(inputs: np.ndarray, targets: np.ndarray, trials: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Of each column of [trials, axes]; rows with the same number in `trials` are never predicted from each other."""
    columns = inputs.shape[1]
    copies = np.repeat(inputs[None], 1 + columns * REPEATS, axis=0).astype(np.float32)
    for index in range(1, len(copies)):
        column = (index - 1) // REPEATS
        copies[index, :, column] = random.permutation(copies[index, :, column])
    squares = _unseen(copies, targets, trials, random)
    rises: np.ndarray = squares[1:].reshape(columns, REPEATS).mean(axis=1) - squares[0]
    return rises / (2 * float(targets.var()))


def _unseen(copies: np.ndarray, targets: np.ndarray, trials: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Mean squared error of each copy of the inputs, each trial predicted by the trees that were grown without it."""
    import sklearn  # its import changes the environment and draws random numbers
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
