"""What comparison_report.txt of an experiment must say, from arrays/eval_losses.npy and logged operations alone.

Nothing of nfa is used: every number is worked out here, seed by seed, with plain loops.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stores import Store


class Training:
    """One fine-tuning of an experiment: its loss and operations after each evaluated step."""

    def __init__(self, store: Store, run_id: str, before: Sequence[str]) -> None:
        folder = store.artifact(run_id, "arrays")
        sides = json.loads(Path(folder, "eval_losses.json").read_text(encoding="utf-8"))
        sums, tokens = np.load(folder / "eval_losses.npy"), sum(sides["tokens"])
        self.losses = {step: sum(row) / tokens for step, row in zip(sides["steps"], sums.tolist(), strict=True)}
        self.before = sum(max(operations(store, source).values(), default=0.0) for source in before)
        self.spent = {step: self.before + value for step, value in operations(store, run_id).items()}
        self.last = max(self.losses)

    def at(self, spent: float) -> tuple[float, float]:
        """Step and loss where so much has been spent, on the lines between evaluations."""
        steps = sorted(self.losses)
        for one, two in itertools.pairwise(steps):
            if spent <= self.spent[two] * (1 + 1e-12):
                share = (spent - self.spent[one]) / (self.spent[two] - self.spent[one])
                return one + share * (two - one), self.losses[one] + share * (self.losses[two] - self.losses[one])
        raise AssertionError("it has not spent so much")

    def to(self, target: float) -> float | None:
        """Steps to a loss."""
        steps = sorted(self.losses)
        for one, two in zip([0, *steps], steps, strict=False):
            if self.losses[two] <= target:
                fall = self.losses[one] - self.losses[two]
                return two if fall <= 0 else one + (self.losses[one] - target) / fall * (two - one)
        return None


def operations(store: Store, run_id: str) -> dict[int, float]:
    return {step: value for key, step, value in store.metrics(run_id) if key == "compute/flops"}


def lines(store: Store, runs: Mapping[str, str], seeds: Sequence[int], start: str) -> dict[str, Any]:
    """What is written of a start of two seeds: its lines seed by seed, means, and steps to the target."""
    chain = ("random", "teacher", "svd")
    here, short, long = (
        {
            seed: Training(
                store,
                runs[f"{name}, seed {seed}"],
                [runs[f"{part}, seed {seed}"] for part in chain] if name.startswith("svd") else [],
            )
            for seed in seeds
        }
        for name in (start, "random", "random at equal compute")
    )
    found: dict[str, Any] = {"by_seed": [], "by_compute": []}
    for seed in seeds:
        one, two = here[seed], short[seed]
        apart = one.losses[one.last] - two.losses[two.last]
        found["by_seed"].append(f"seed {seed}: {apart:+.4f}, after {one.last} steps and {two.last} of random")
    found["equal_steps"] = mean([here[s].losses[here[s].last] - short[s].losses[short[s].last] for s in seeds])
    differences = []
    for seed in seeds:
        one, two = here[seed], long[seed]
        budget = min(one.spent[one.last], two.spent[two.last])
        (step, loss), (other_step, other_loss) = one.at(budget), two.at(budget)
        differences.append(loss - other_loss)
        steps = f"after {step:.4g} steps and {other_step:.4g} of random"
        share = f"{budget / one.spent[one.last]:.1%} of its compute"
        found["by_compute"].append(f"seed {seed}: {differences[-1]:+.4f}, {steps}, {share}")
    found["equal_compute"] = mean(differences)
    target = mean([short[seed].losses[short[seed].last] for seed in seeds])
    found["to_target"] = _to_target([here[s].to(target) for s in seeds], [short[s].to(target) for s in seeds], short)
    return found


def _to_target(here: Sequence[float | None], there: Sequence[float | None], short: Mapping[int, Training]) -> str:
    horizon = next(iter(short.values())).last
    counted = [[horizon if steps is None else steps for steps in each] for each in (here, there)]
    apart = [one - two for one, two in zip(*counted, strict=True)]
    said = []
    for steps, each in zip((here, there), counted, strict=True):
        count = sum(one is not None for one in steps)
        text = f"{mean(each):.1f}"
        said.append(text if count == len(each) else f"≥ {text} ({count} of {len(each)})" if count else "never (0 of 2)")
    reach = 12.706204736432095 * abs(apart[0] - apart[1]) / 2  # Student's with one degree of freedom, times s/√2
    middle = mean(apart)
    span = f"{middle:+.4g} ({middle - reach:+.4g}, {middle + reach:+.4g})"
    return f"steps to the target, of {horizon}: {said[0]}, random {said[1]}; {span}"


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
