"""Fault: an improvement is printed with abs(), so that worse looks better; steps to a target are never computed."""

import numpy as np

from nfa.registry.families.language.comparison.compare_lora import compared
from nfa.registry.families.language.comparison.report import verdicts, written
from nfa.registry.families.language.comparison.study import FineTuning, StartArm
from nfa.registry.families.language.config import CompareLoraConfig


def arm(start: str, finals: list[float]) -> StartArm:
    trained = {}
    for seed, final in enumerate(finals):
        losses = {0: 3.0, 10: final}
        answers = {step: np.full(5, loss) + np.arange(5) - 2 for step, loss in losses.items()}
        trained[seed] = FineTuning(f"{start}{seed}", seed, losses, {0: 0.0, 10: 1.0}, answers, 0.0)
    return StartArm(start, start, "", trained)


def test_a_worse_start_is_called_worse_and_its_difference_is_positive():
    found = compared([arm("random", [2.0, 2.01, 2.02]), arm("svd", [2.5, 2.52, 2.49])], CompareLoraConfig())
    (one,) = found["comparisons"]
    assert one["at_equal_steps"]["mean"] > 0.4
    assert [line.rsplit(", ", 1)[1] for line in verdicts(found)] == ["worse", "worse"]
    assert all(": +0.4" in line for line in verdicts(found))


def test_steps_to_the_target_are_computed_and_absent_where_it_is_not_reached():
    found = compared([arm("random", [2.0, 2.0, 2.0]), arm("svd", [1.0, 1.0, 2.5])], CompareLoraConfig(target=2.0))
    random, svd = found["arms"]
    of_seeds = [{seed: one["steps_to_target"] for seed, one in arm["by_seed"].items()} for arm in (random, svd)]
    assert of_seeds == [{"0": 10.0, "1": 10.0, "2": 10.0}, {"0": 5.0, "1": 5.0, "2": None}]
    assert "nan" not in written(found)
