"""Made-up tuning studies: one objective with pruned and failed trials, and two objectives with a constraint."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from nfa.registry.sweeps.space import Axis, Choice, Range
from nfa.registry.sweeps.study_table import ConfirmedArm, StudyTable, TrialRow

# Much wider than what is drawn: no trial lies at an edge.
LR = Range("lr", 1e-9, 1e5, log=True)
OPTIMIZER = Choice("optimizer", ("sgd", "adam", "muon"))
WIDTH = Range("width", -1e5, 1e5)


def planted(
    value: Callable[[Mapping[str, Any], np.random.Generator], float],
    axes: Sequence[Axis],
    *,
    trials: int = 24,
    seed: int = 0,
) -> StudyTable:
    """Random finished trials of `value`; ranges are 0 to 1, log axes 1e-4 to 1."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(trials):
        parameters = {axis.name: drawn(axis, random) for axis in axes}
        rows.append(TrialRow(number, "finished", parameters, (value(parameters, random),)))
    return StudyTable("planted", ("y",), (False,), tuple(axes), tuple(rows))


def drawn(axis: Axis, random: np.random.Generator) -> Any:
    if isinstance(axis, Choice):
        return axis.values[random.integers(len(axis.values))]
    return float(10 ** random.uniform(-4, 0)) if axis.log else float(random.uniform())


def classifier(trials: int = 24, seed: int = 1) -> StudyTable:
    """Trial 0 are the defaults; every fourth or so is pruned, two fail, and one runs still."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(trials):
        parameters = {
            "lr": 0.01 if number == 0 else float(10 ** random.uniform(-4, 0)),
            "optimizer": "sgd" if number == 0 else str(random.choice(OPTIMIZER.values)),
            "width": 128 if number == 0 else int(random.integers(32, 513)),
        }
        rows.append(_trained(number, parameters, trials, random))
    return StudyTable("digits-lr", ("val/loss",), (False,), (LR, OPTIMIZER, WIDTH), tuple(rows))


def _trained(number: int, parameters: Mapping[str, Any], trials: int, random: np.random.Generator) -> TrialRow:
    best = {"sgd": -0.7, "adam": -2.5, "muon": -1.7}[parameters["optimizer"]]
    end = 0.08 + 0.25 * (np.log10(parameters["lr"]) - best) ** 2 + 4 / parameters["width"]
    curve = {epoch: float(end + (2.3 - end) * np.exp(-epoch / 3) + 0.02 * random.normal()) for epoch in range(1, 11)}
    seconds = 3 + parameters["width"] / 100
    if number in (5, 13):
        return TrialRow(number, "failed", parameters, (), dict(list(curve.items())[:2]), error="loss became inf")
    if number == trials - 1:
        return TrialRow(number, "running", parameters, (), dict(list(curve.items())[:3]))
    if number > 5 and curve[3] > 1.7:
        return TrialRow(number, "pruned", parameters, (), dict(list(curve.items())[:3]), seconds=seconds / 3)
    return TrialRow(number, "finished", parameters, (curve[10],), curve, seconds=seconds, run_id=f"{number:032x}")


def two_objectives(trials: int = 24, seed: int = 2) -> StudyTable:
    """Accuracy against seconds: wide networks are better and slower. Trials of more than 15 seconds are infeasible."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(trials):
        width, lr = int(2 ** random.uniform(4, 11)), float(10 ** random.uniform(-4, -1))
        seconds = float(1 + width / 60 + random.uniform(0, 2))
        accuracy = 0.97 - 0.6 / width**0.5 - 0.03 * (np.log10(lr) + 2.5) ** 2 + 0.01 * float(random.normal())
        parameters = {"lr": lr, "width": width, "optimizer": str(random.choice(OPTIMIZER.values))}
        rows.append(TrialRow(number, "finished", parameters, (float(accuracy), seconds), feasible=seconds <= 15))
    return StudyTable("width-cost", ("val/accuracy", "seconds"), (True, False), (LR, WIDTH, OPTIMIZER), tuple(rows))


def arms(shift: float = -0.1, seeds: int = 5, spread: float = 0.01) -> list[ConfirmedArm]:
    """Defaults, and a best trial whose loss is `shift` more on average."""
    random = np.random.default_rng(0)
    base = random.normal(0.4, 0.05, seeds)
    best, numbers = base + shift + spread * random.normal(size=seeds), tuple(range(1718, 1718 + seeds))
    return [
        ConfirmedArm("defaults", {"lr": 0.01, "optimizer": "sgd", "width": 128}, (tuple(map(float, base)),), numbers),
        ConfirmedArm("trial 9", {"lr": 0.003, "optimizer": "adam", "width": 301}, (tuple(map(float, best)),), numbers),
    ]


def optuna_study(table: StudyTable) -> optuna.Study:
    """The same trials in Optuna, in memory."""
    ways = [StudyDirection.MAXIMIZE if more else StudyDirection.MINIMIZE for more in table.maximise]
    study = optuna.create_study(study_name=table.name, directions=ways)
    spaces: dict[str, BaseDistribution] = {
        "lr": FloatDistribution(1e-4, 1, log=True),
        "optimizer": CategoricalDistribution(OPTIMIZER.values),
        "width": IntDistribution(1, 4096),
    }
    states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "running": TrialState.RUNNING}
    for row in table.rows:
        found = create_trial(
            state=states.get(row.state, TrialState.FAIL),
            params=dict(row.parameters),
            distributions={name: spaces[name] for name in row.parameters},
            values=list(row.values) or None,
            intermediate_values=dict(row.intermediate),
        )
        study.add_trial(found)
    return study
