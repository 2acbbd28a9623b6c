"""What an experiment's comparison.json and comparison_report.txt must say, from its stored losses and operations alone.

Only arrays/eval_losses.npy, the operations that were logged and how the steps follow one another are used, and nothing
of nfa: every number is worked out here, seed by seed, with plain loops.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from tests.support.stores import Store

CHAIN = ("random", "teacher", "svd")  # what a start from an SVD is made from
LONG = "random at equal compute"
DRAWS = 4000
Found = dict[str, Any]


class Training:
    """One fine-tuning of an experiment: losses of its questions, and operations, after each evaluated step."""

    def __init__(self, store: Store, run_id: str, before: Sequence[str]) -> None:
        folder = store.artifact(run_id, "arrays")
        sides = json.loads(Path(folder, "eval_losses.json").read_text(encoding="utf-8"))
        rows, tokens = np.load(folder / "eval_losses.npy").tolist(), sum(sides["tokens"])
        each = len(sides["tokens"]) / tokens
        self.answers = {step: [loss * each for loss in row] for step, row in zip(sides["steps"], rows, strict=True)}
        self.losses = {step: sum(row) / tokens for step, row in zip(sides["steps"], rows, strict=True)}
        self.before = sum(max(operations(store, source).values(), default=0.0) for source in before)
        self.spent = {step: self.before + value for step, value in operations(store, run_id).items()}
        self.run_id, self.last = run_id, max(self.losses)

    def at(self, spent: float) -> tuple[float, list[float]]:
        """The step where so much has been spent, and the questions' losses, on the lines between evaluations."""
        steps = sorted(self.losses)
        for one, two in itertools.pairwise(steps):
            if spent <= self.spent[two] * (1 + 1e-12):
                share = (spent - self.spent[one]) / (self.spent[two] - self.spent[one])
                ends = zip(self.answers[one], self.answers[two], strict=True)
                return one + share * (two - one), [low + share * (high - low) for low, high in ends]
        raise AssertionError("it has not spent so much")

    def to(self, target: float) -> float | None:
        """Steps to a loss."""
        one: float
        two: float
        steps = sorted(self.losses)
        for one, two in zip([0, *steps], steps, strict=False):
            if self.losses[two] <= target:
                fall = self.losses[one] - self.losses[two]
                return two if fall <= 0 else one + (self.losses[one] - target) / fall * (two - one)
        return None

    def described(self, target: float) -> Found:
        losses = self.losses
        return {
            "run_id": self.run_id,
            "initial_loss": losses[0],
            "final_loss": losses[self.last],
            "best_loss": min(losses.values()),
            "steps_to_target": self.to(target),
            "operations": self.spent[self.last],
            "start_operations": self.before,
        }


Seeds = Mapping[int, Training]
ENDS: Mapping[str, Callable[[Training], float]] = {
    "initial": lambda one: one.losses[0],
    "best": lambda one: min(one.losses.values()),
}


def operations(store: Store, run_id: str) -> dict[int, float]:
    return {step: value for key, step, value in store.metrics(run_id) if key == "nfa/flops"}


def comparison(store: Store, runs: Mapping[str, str], seeds: Sequence[int], starts: Sequence[str]) -> Found:
    """Content of comparison.json, without its texts, of starts from the SVD of synthesised teachers."""
    names = {"random": "random", LONG: "random", **{f"svd-{s}": f"svd {s}, synthesised teacher" for s in starts}}
    arms = {name: _trainings(store, runs, name, seeds) for name in names}
    labels = {name: f"{names[name]}, {_first(arms[name]).last} steps" for name in names}
    target = mean([one.losses[one.last] for one in arms["random"].values()])
    against = [
        {"arm": labels[name], "random": labels["random"], "random_in_compute": labels[LONG]}
        | _against(arms[name], arms["random"], arms[LONG], target)
        for name in names
        if names[name] != "random"
    ]
    alone = [{"label": labels[name], "start": start, **_alone(arms[name], target)} for name, start in names.items()]
    return {"arms": alone, "target_loss": target, "comparisons": against}


def _trainings(store: Store, runs: Mapping[str, str], name: str, seeds: Sequence[int]) -> Seeds:
    before = CHAIN if name.startswith("svd") else ()
    return {
        seed: Training(store, runs[f"{name}, seed {seed}"], [runs[f"{part}, seed {seed}"] for part in before])
        for seed in seeds
    }


def _first(trained: Seeds) -> Training:
    return next(iter(trained.values()))


def _alone(trained: Seeds, target: float) -> Found:
    by_seed = {str(seed): one.described(target) for seed, one in trained.items()}
    names = ("initial_loss", "final_loss", "best_loss", "operations", "start_operations")
    times, horizon = [one["steps_to_target"] for one in by_seed.values()], _first(trained).last
    return {
        **{name: mean([one[name] for one in by_seed.values()]) for name in names},
        "steps": horizon,
        "seeds_at_target": sum(time is not None for time in times),
        "steps_to_target": mean([horizon if time is None else time for time in times]),
        "by_seed": by_seed,
    }


def _against(here: Seeds, short: Seeds, long: Seeds, target: float) -> Found:
    ends, budgets = {}, {}
    for seed, one in here.items():
        ends[seed] = (one.at(one.spent[one.last]), short[seed].at(short[seed].spent[short[seed].last]), None)
        budget = min(one.spent[one.last], long[seed].spent[long[seed].last])
        budgets[seed] = (one.at(budget), long[seed].at(budget), budget / one.spent[one.last])
    beside = {
        f"{of}_difference": student([value(here[seed]) - value(short[seed]) for seed in here])
        for of, value in ENDS.items()
    }
    return {
        "at_equal_steps": _difference(ends),
        "at_equal_compute": _difference(budgets),
        **beside,
        "steps_to_target": _to_target(here, short, target),
    }


def _difference(found: Mapping[int, Any]) -> Found:
    table, by_seed = [], {}
    for seed, ((step, answers), (other_step, others), share) in found.items():
        table.append([one - two for one, two in zip(answers, others, strict=True)])
        by_seed[str(seed)] = {"difference": mean(table[-1]), "steps": step, "random_steps": other_step}
        if share is not None:
            by_seed[str(seed)]["share_of_compute"] = share
    middle, low, high = bootstrap(table)
    if len(table) < 3:
        verdict = f"no verdict: {len(table)} seeds in common, 3 are needed"
    else:
        verdict = "better" if high < 0 else "worse" if low > 0 else "cannot be told apart"
    return {"mean": middle, "low": low, "high": high, "seeds": len(table), "by_seed": by_seed, "verdict": verdict}


def bootstrap(table: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Owen's pigeonhole bootstrap of the mean, with the docstring's corrections, draw by draw."""
    rows, columns = len(table), len(table[0])
    middle = mean([value for row in table for value in row])
    of_rows = [mean(row) for row in table]
    of_columns = [mean([row[q] for row in table]) for q in range(columns)]
    by_row, by_column = (math.sqrt(m / (m - 1)) - 1 for m in (rows, columns))
    wide = np.array(
        [
            [
                value - middle + by_row * (of_rows[r] - middle) + by_column * (of_columns[q] - middle)
                for q, value in enumerate(row)
            ]
            for r, row in enumerate(table)
        ]
    )
    random = np.random.default_rng(1717)
    drawn = [random.multinomial(count, [1 / count] * count, size=DRAWS) for count in (rows, columns)]
    means = [float(times @ wide @ often) / (rows * columns) for times, often in zip(*drawn, strict=True)]
    known = [(np.var(of, ddof=1) / len(of), len(of) - 1) for of in (of_rows, of_columns)]
    freedom = sum(variance for variance, _ in known) ** 2 / sum(variance**2 / free for variance, free in known)
    stretch = stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975)
    low, high = np.quantile(means, [0.025, 0.975])
    return middle, middle + stretch * low, middle + stretch * high


def _to_target(here: Seeds, short: Seeds, target: float) -> Found:
    horizon = _first(short).last
    by_seed = {seed: {"steps": here[seed].to(target), "random_steps": short[seed].to(target)} for seed in here}
    counted: dict[str, list[float]] = {
        name: [horizon if (steps := one[name]) is None else steps for one in by_seed.values()]
        for name in ("steps", "random_steps")
    }
    there = {name: sum(one[name] is not None for one in by_seed.values()) for name in counted}
    apart = [one - two for one, two in zip(*counted.values(), strict=True)]
    return {
        "horizon": horizon,
        "restricted_mean": mean(counted["steps"]),
        "random_restricted_mean": mean(counted["random_steps"]),
        "difference": student(apart) if any(there.values()) else None,
        "reached": there["steps"],
        "random_reached": there["random_steps"],
        "by_seed": {str(seed): one for seed, one in by_seed.items()},
    }


def student(values: Sequence[float]) -> Found:
    """Mean and 95 % t-interval."""
    n, middle = len(values), mean(values)
    error = math.sqrt(sum((value - middle) ** 2 for value in values) / (n - 1) / n)
    reach = stats.t.ppf(0.975, n - 1) * error
    return {"mean": middle, "low": middle - reach, "high": middle + reach, "seeds": n}


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


# ---- the same in words


def lines(one: Mapping[str, Any]) -> list[str]:
    """What comparison_report.txt must say of a start that was compared."""
    said = []
    for at, other in (("at_equal_steps", "random"), ("at_equal_compute", "random_in_compute")):
        found = one[at]
        uncounted = ", without the compute of its start" if at == "at_equal_steps" else ""
        span = f"{_span(found, '+z.4f')}, {found['verdict']}{uncounted}"
        said.append(f"  {one['arm']}, {at.replace('_', ' ')} as {one[other]}: {span}")
        for seed, look in found["by_seed"].items():
            share = f", {look['share_of_compute']:.1%} of its compute" if "share_of_compute" in look else ""
            steps = f"after {look['steps']:.4g} steps, random after {look['random_steps']:.4g}"
            said.append(f"    seed {seed}: {look['difference']:+z.4f}, {steps}{share}")
    ends = ("initial", "best")
    said += [f"  {one['arm']}: {of} loss {_span(one[f'{of}_difference'], '+z.4f')}" for of in ends]
    to = one["steps_to_target"]
    arms = ((to["restricted_mean"], to["reached"]), (to["random_restricted_mean"], to["random_reached"]))
    means = [_restricted(steps, there, len(to["by_seed"])) for steps, there in arms]
    span = "" if to["difference"] is None else f"; {_span(to['difference'], '+z.4g')}"
    said.append(f"  {one['arm']}: steps to the target (at most {to['horizon']}): {means[0]}, random {means[1]}{span}")
    return said


def _span(found: Mapping[str, float], form: str) -> str:
    return f"{found['mean']:{form}} ({found['low']:{form}}, {found['high']:{form}})"


def _restricted(steps: float, there: int, seeds: int) -> str:
    if not there:
        return f"never (0 of {seeds})"
    return f"{steps:.1f}" if there == seeds else f"≥ {steps:.1f} ({there} of {seeds})"
