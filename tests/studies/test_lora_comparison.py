"""Comparisons of fine-tunings: what is subtracted from what, where, and when something may be said."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfa.maths.statistics import crossed_bootstrap, t_interval
from nfa.studies.lora_comparison import (
    RANDOM,
    Arm,
    Trained,
    at_end,
    at_equal_compute,
    faster,
    paired,
    partner,
    partner_in_compute,
)

QUESTIONS = 30


def trained(seed: int, losses: Mapping[int, float], *, cost: float | None = 0.0, each: float = 10.0) -> Trained:
    """A training whose questions scatter around its losses, and cost `each` operations a step."""
    random = np.random.default_rng([seed, 7])
    scatter = random.standard_normal(QUESTIONS)
    answers = {step: loss + scatter - scatter.mean() for step, loss in losses.items()}
    return Trained(f"run{seed}", seed, losses, {step: each * step for step in losses}, answers, cost)


def arm(start: str, finals: Mapping[int, float], *, steps: int = 10, settings: str = "", **options: Any) -> Arm:
    """Seeds that fall from 3 to these losses, evenly."""
    half = steps // 2
    found = {
        seed: trained(seed, {0: 3.0, half: (3.0 + final) / 2, steps: final}, **options)
        for seed, final in finals.items()
    }
    return Arm(f"{start}, {steps} steps", start, settings, found)


BETTER = {1: 1.70, 2: 1.72, 3: 1.71}
RANDOMS = {1: 2.00, 2: 2.01, 3: 2.02}


def test_a_difference_is_that_of_the_final_losses_of_the_same_seeds():
    found = at_end(arm("svd", BETTER), arm(RANDOM, RANDOMS))
    assert found
    assert found.mean == pytest.approx(np.mean([BETTER[seed] - RANDOMS[seed] for seed in BETTER]), abs=1e-12)
    assert (found.seeds, found.steps) == (3, (10, 10))


def test_its_interval_is_the_crossed_bootstrap_over_seeds_and_questions():
    svd, random = arm("svd", BETTER), arm(RANDOM, RANDOMS)
    table = np.stack([svd.trained[seed].answers[10] - random.trained[seed].answers[10] for seed in (1, 2, 3)])
    found = at_end(svd, random, seed=5)
    assert found
    assert found.interval == crossed_bootstrap(table, seed=5)


def test_better_is_below_zero_and_worse_above_and_neither_is_made_positive():
    svd, random = arm("svd", BETTER), arm(RANDOM, RANDOMS)
    ahead, behind = at_end(svd, random), at_end(random, svd)
    assert ahead
    assert behind
    assert (ahead.verdict, behind.verdict) == ("better", "worse")
    assert ahead.mean == -behind.mean < 0


def test_nothing_is_said_where_the_interval_holds_zero():
    found = at_end(arm("svd", {1: 2.1, 2: 1.9, 3: 2.02}), arm(RANDOM, {1: 2.0, 2: 2.0, 3: 2.0}))
    assert found
    assert found.interval
    assert found.interval.low < 0 < found.interval.high
    assert found.verdict == "cannot be told apart"


@pytest.mark.parametrize(("seeds", "has_interval"), [([1], False), ([1, 2], True)])
def test_nothing_is_said_of_fewer_than_three_seeds(seeds, has_interval):
    found = at_end(arm("svd", {seed: BETTER[seed] for seed in seeds}), arm(RANDOM, RANDOMS))
    assert found
    assert (found.interval is not None) == has_interval
    assert found.verdict.startswith(f"no verdict: {len(seeds)} seed")


def test_seeds_that_only_one_has_are_left_out():
    found = at_end(arm("svd", {**BETTER, 9: 0.0}), arm(RANDOM, {**RANDOMS, 8: 9.0}))
    assert found == at_end(arm("svd", BETTER), arm(RANDOM, RANDOMS))
    assert at_end(arm("svd", {9: 0.0}), arm(RANDOM, RANDOMS)) is None


def test_what_a_start_has_cost_counts_at_equal_compute():
    """10 steps and 100 operations before are the compute of 20 steps."""
    svd, long = arm("svd", BETTER, cost=100.0), arm(RANDOM, {1: 1.5, 2: 1.5, 3: 1.5}, steps=20)
    found = at_equal_compute(svd, long)
    assert found
    assert found.steps == (10, 20)
    assert found.verdict == "worse"
    free = at_equal_compute(arm("svd", BETTER, cost=0.0), long)
    assert free
    assert free.steps == (10, 10)
    assert free.verdict == "better"


@pytest.mark.parametrize("options", [{"cost": None}, {"cost": 500.0}])
def test_without_a_known_cost_or_a_long_enough_partner_there_is_no_comparison(options):
    assert at_equal_compute(arm("svd", BETTER, **options), arm(RANDOM, RANDOMS, steps=20)) is None


def test_a_partner_that_is_too_long_is_looked_at_where_the_compute_is_spent():
    found = at_equal_compute(arm("svd", BETTER), arm(RANDOM, RANDOMS, steps=20))
    assert found
    assert found.steps == (10, 10)


def test_partners_are_random_have_the_same_settings_and_the_nearest_end():
    svd = arm("svd", BETTER, cost=100.0, settings="lr 0.1")
    others = [
        arm(RANDOM, RANDOMS, settings="lr 0.2"),
        arm("pissa", RANDOMS, settings="lr 0.1"),
        arm(RANDOM, RANDOMS, steps=10, settings="lr 0.1"),
        arm(RANDOM, RANDOMS, steps=40, settings="lr 0.1"),
        arm(RANDOM, RANDOMS, steps=20, settings="lr 0.1"),
    ]
    assert partner(svd, [svd, *others]) is others[2]
    assert partner_in_compute(svd, [svd, *others]) is others[4]
    assert partner(svd, others[:2]) is None
    assert partner_in_compute(svd, others[:3]) is None


@given(st.lists(st.floats(0.5, 4.0), min_size=2, max_size=8), st.floats(0.5, 4.0))
def test_steps_to_a_target_are_the_first_on_the_lines_between_evaluations(values, target):
    steps = [3 * index for index in range(len(values))]
    found = trained(1, dict(zip(steps, values, strict=True))).steps_to(target)
    fine = np.linspace(0, steps[-1], 30 * len(steps) + 1)
    below = fine[np.interp(fine, steps, values) <= target]
    if not len(below):
        assert found is None or min(values) == pytest.approx(target)
    else:
        assert found is not None
        assert found <= below[0] + 1e-9
        assert np.interp(found, steps, values) <= target + 1e-9


def test_a_target_that_is_never_reached_has_no_steps_and_one_that_is_passed_at_the_start_has_none_to_make():
    one = trained(1, {0: 3.0, 10: 2.0})
    assert one.steps_to(1.9) is None
    assert one.steps_to(3.5) == 0
    assert one.steps_to(2.5) == 5


def test_the_factor_in_steps_is_a_geometric_mean_over_seeds_that_both_reach_it():
    svd, random = arm("svd", BETTER), arm(RANDOM, RANDOMS)
    logs = [
        math.log(random.trained[seed].steps_to(2.5) / svd.trained[seed].steps_to(2.5))  # type: ignore[operator]
        for seed in (1, 2, 3)
    ]
    found, plain = faster(svd, random, 2.5), t_interval(logs)
    assert found
    assert plain
    assert found[:3] == pytest.approx([math.exp(value) for value in plain[:3]])
    assert found.mean > 1
    assert faster(svd, random, 1.0) is None


def test_initial_and_best_losses_are_compared_seed_by_seed():
    svd, random = arm("svd", BETTER), arm(RANDOM, RANDOMS)
    assert paired(svd, random, "initial") == t_interval([0.0] * 3)
    assert paired(svd, random, "best") == t_interval([BETTER[seed] - RANDOMS[seed] for seed in (1, 2, 3)])
