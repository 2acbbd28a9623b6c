"""What a comparison of fine-tunings says: seed by seed, with those that never arrive, and what was not counted."""

from typing import Any

import numpy as np
import pytest

from nfa.registry.families.language.comparison.compare_lora import compared
from nfa.registry.families.language.comparison.report import verdicts, written
from nfa.registry.families.language.comparison.study import FineTuning, StartArm
from nfa.registry.families.language.config import CompareLoraConfig


def arm(start: str, finals: list[float], *, cost: float = 0.0, each: tuple[float, ...] = (1.0, 1.0, 1.0)) -> StartArm:
    """Seeds 1, 2, … whose steps cost `each`; random ones are trained twice as long."""
    steps, trained = 20 if start == "long" else 10, {}
    for seed, (final, price) in enumerate(zip(finals, each, strict=True), start=1):
        losses = {0: 3.0, steps: final}
        answers = {step: np.full(5, loss) + np.arange(5) - 2 for step, loss in losses.items()}
        operations = {step: price * step * 1e12 for step in losses}
        trained[seed] = FineTuning(f"{start}{seed}", seed, losses, operations, answers, cost * 1e12)
    return StartArm(start, "random" if start == "long" else start, "", trained)


RANDOM, LONG = arm("random", [2.0, 2.01, 2.02]), arm("long", [1.5, 1.5, 1.5], each=(1.0, 1.1, 1.25))


def report(*arms: StartArm, **options: Any) -> tuple[dict[str, Any], str]:
    found = compared(arms, CompareLoraConfig(**options))
    return found, written(found)


def test_at_equal_compute_every_seed_has_its_own_steps_and_share() -> None:
    found, text = report(RANDOM, LONG, arm("svd", [1.9, 1.9, 1.9], cost=10.0))
    of_seeds = found["comparisons"][0]["at_equal_compute"]["by_seed"]
    assert [one["random_steps"] for one in of_seeds.values()] == pytest.approx([20, 20 / 1.1, 16])
    assert [one["share_of_compute"] for one in of_seeds.values()] == [1, 1, 1]
    assert "seed 3: +0.1000, after 10 steps, random after 16, 100.0% of its compute" in text
    assert "seed 2: +0.2636, after 10 steps, random after 18.18" in text


def test_what_a_start_has_cost_is_said_not_to_count_at_equal_steps_alone() -> None:
    found, _ = report(RANDOM, LONG, arm("svd", [1.9, 1.9, 1.9], cost=10.0), arm("pissa", [1.9, 1.9, 1.9]))
    said = [line.endswith("without the compute of its start") for line in verdicts(found)]
    assert [" at equal steps" in line for line in verdicts(found)] == [True, False] * 2
    assert said == [True, False, False, False]


def test_how_many_reach_the_target_is_said_and_means_are_bounds_where_some_do_not() -> None:
    found, text = report(RANDOM, arm("svd", [1.0, 1.0, 2.5]), target=2.0)
    assert [one["seeds_at_target"] for one in found["arms"]] == [1, 2]
    assert [one["steps_to_target"] for one in found["arms"]] == pytest.approx([10, 20 / 3])
    assert "steps to the target (at most 10): ≥ 6.7 (2 of 3), random ≥ 10.0 (1 of 3); -3.333 (-10.5, +3.838)" in text


def test_where_nobody_reaches_the_target_there_is_no_difference() -> None:
    found, text = report(RANDOM, arm("svd", [1.0, 1.0, 2.5]), target=0.5)
    assert found["comparisons"][0]["steps_to_target"]["difference"] is None
    assert "steps to the target (at most 10): never (0 of 3), random never (0 of 3)\n" in text


def test_no_zero_has_a_minus() -> None:
    _, text = report(RANDOM, LONG, arm("svd", [2.0 - 1e-9, 2.01 - 1e-9, 2.02 - 1e-9]))
    assert "at equal steps as random: +0.0000 (+0.0000, +0.0000)" in text
    assert "-0.0000" not in text


def test_every_training_has_a_line() -> None:
    _, text = report(RANDOM, arm("svd", [1.7, 1.8, 1.9], cost=10.0))
    block = text.partition("Each training\n\n")[2].partition("\n\n")[0].splitlines()[1:]
    trainings = [[start, seed] for start in ("random", "svd") for seed in ("1", "2", "3")]
    assert [line.split()[:2] for line in block] == trainings
    assert [line.split()[4] for line in block] == ["2.0000", "2.0100", "2.0200", "1.7000", "1.8000", "1.9000"]
    assert [line.split()[-2:] for line in block[3:]] == [["20", "10"]] * 3
