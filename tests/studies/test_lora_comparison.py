"""Comparisons of fine-tunings: what is subtracted from what, where, and when something may be said."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfa import reference
from nfa.maths.statistics import crossed_bootstrap, t_interval
from nfa.registry.families.language.comparison.study import (
    RANDOM,
    FineTuning,
    LossDifference,
    StartArm,
    at_end,
    at_equal_compute,
    paired,
    partner,
    partner_in_compute,
    reached,
)

QUESTIONS = 30


def trained(seed: int, losses: Mapping[int, float], *, cost: float | None = 0.0, each: float = 10.0) -> FineTuning:
    """A training whose questions scatter around its losses, and cost `each` operations a step."""
    random = np.random.default_rng([seed, 7])
    scatter = random.standard_normal(QUESTIONS)
    answers = {step: loss + scatter - scatter.mean() for step, loss in losses.items()}
    return FineTuning(f"run{seed}", seed, losses, {step: each * step for step in losses}, answers, cost)


def arm(start: str, finals: Mapping[int, float], *, steps: int = 10, settings: str = "", **options: Any) -> StartArm:
    """Seeds that fall from 3 to these losses, evenly."""
    half = steps // 2
    found = {
        seed: trained(seed, {0: 3.0, half: (3.0 + final) / 2, steps: final}, **options)
        for seed, final in finals.items()
    }
    return StartArm(f"{start}, {steps} steps", start, settings, found)


BETTER = {1: 1.70, 2: 1.72, 3: 1.71}
RANDOMS = {1: 2.00, 2: 2.01, 3: 2.02}


def test_a_difference_is_that_of_the_final_losses_of_the_same_seeds():
    found = at_end(arm("svd", BETTER), arm(RANDOM, RANDOMS))
    assert found
    assert found.mean == pytest.approx(np.mean([BETTER[seed] - RANDOMS[seed] for seed in BETTER]), abs=1e-12)
    assert {seed: look.steps for seed, look in found.by_seed.items()} == dict.fromkeys(BETTER, (10, 10))
    for seed, look in found.by_seed.items():
        assert look.difference == pytest.approx(BETTER[seed] - RANDOMS[seed], abs=1e-12)


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


def steps_of(found: LossDifference) -> dict[int, tuple[float, float]]:
    return {seed: look.steps for seed, look in found.by_seed.items()}


def test_what_a_start_has_cost_counts_at_equal_compute():
    """10 steps and 100 operations before are the compute of 20 steps."""
    svd, long = arm("svd", BETTER, cost=100.0), arm(RANDOM, {1: 1.5, 2: 1.5, 3: 1.5}, steps=20)
    found = at_equal_compute(svd, long)
    assert found
    assert steps_of(found) == dict.fromkeys(BETTER, (10, 20))
    assert found.verdict == "worse"
    free = at_equal_compute(arm("svd", BETTER, cost=0.0), long)
    assert free
    assert steps_of(free) == dict.fromkeys(BETTER, (10, 10))
    assert free.verdict == "better"


def test_each_seed_is_looked_at_where_it_has_spent_its_own_budget():
    """Budgets of 130, 150 and 170 operations are 13, 15 and 17 steps of the other, evaluated after 10 and 20."""
    costs = {1: 30.0, 2: 50.0, 3: 70.0}
    svd = StartArm(
        "svd", "svd", "", {seed: trained(seed, {0: 3.0, 10: 1.7}, cost=cost) for seed, cost in costs.items()}
    )
    random = StartArm(RANDOM, RANDOM, "", {seed: trained(seed, {0: 3.0, 10: 2.0, 20: 1.0}) for seed in costs})
    found = at_equal_compute(svd, random)
    assert found
    assert steps_of(found) == {1: (10, 13), 2: (10, 15), 3: (10, 17)}
    for seed, expected in {1: 1.7, 2: 1.5, 3: 1.3}.items():
        assert found.by_seed[seed].difference == pytest.approx(1.7 - expected)
        assert found.by_seed[seed].share == 1
    assert found.mean == pytest.approx(0.2)


def test_where_the_other_has_spent_a_little_less_both_are_looked_at_there():
    svd = StartArm("svd", "svd", "", {1: trained(1, {0: 3.0, 10: 1.7}, cost=1.0)})
    found = at_equal_compute(svd, arm(RANDOM, {1: 2.0}))
    assert found
    (look,) = found.by_seed.values()
    assert look.steps == pytest.approx((9.9, 10))
    assert look.share == pytest.approx(100 / 101)
    assert look.difference == pytest.approx(1.713 - 2.0)


@given(st.data())
def test_at_equal_compute_no_one_has_spent_more_and_losses_are_between_evaluations(data):
    steps = sorted(data.draw(st.sets(st.integers(1, 40), min_size=1, max_size=5)) | {0})
    losses = {step: data.draw(st.floats(0.5, 4.0)) for step in steps}
    one = trained(1, {0: 3.0, 10: 2.0}, cost=data.draw(st.floats(0, 300)), each=data.draw(st.floats(1, 20)))
    two = trained(1, losses)
    found = at_equal_compute(StartArm("svd", "svd", "", {1: one}), StartArm(RANDOM, RANDOM, "", {1: two}))
    budget = one.total or 0.0
    if 10.0 * steps[-1] < 0.98 * budget:
        assert found is None
        return
    assert found
    (look,) = found.by_seed.values()
    spent = one.start_operations + np.interp(look.steps[0], [0, 10], [0, one.operations[10]])
    assert spent == pytest.approx(10 * look.steps[1])
    assert spent == pytest.approx(min(budget, 10.0 * steps[-1]))
    there = np.interp(look.steps[1], steps, [losses[step] for step in steps])
    assert look.difference == pytest.approx(np.interp(look.steps[0], [0, 10], [3.0, 2.0]) - there, abs=1e-9)


@pytest.mark.parametrize("options", [{"cost": None}, {"cost": 500.0}])
def test_without_a_known_cost_or_a_long_enough_partner_there_is_no_comparison(options):
    assert at_equal_compute(arm("svd", BETTER, **options), arm(RANDOM, RANDOMS, steps=20)) is None


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


TIMES = st.lists(
    st.tuples(*[st.one_of(st.none(), st.integers(0, 10).map(float))] * 2), min_size=2, max_size=6
)  # of seeds


def reaching(start: str, times: Sequence[float | None]) -> StartArm:
    """Seeds that are at a loss of 1 after so many of 10 steps, or never."""
    found = {
        seed: trained(seed, {step: 1.0 if time is not None and step >= time else 2.0 for step in range(11)})
        for seed, time in enumerate(times)
    }
    return StartArm(start, start, "", found)


@given(TIMES)
def test_steps_to_a_target_are_restricted_means_and_count_every_seed(times):
    here, there = zip(*times, strict=True)
    found = reached(reaching("svd", here), reaching(RANDOM, there), 1.0)
    assert found
    assert found.means == pytest.approx(tuple(reference.restricted_mean(each, 10.0) for each in (here, there)))
    assert found.counts == tuple(sum(time is not None for time in each) for each in (here, there))
    if any(found.counts):
        apart = [(10.0 if a is None else a) - (10.0 if b is None else b) for a, b in times]
        assert found.difference == t_interval(apart)
        assert found.difference.n == len(times)
    else:
        assert found.difference is None


def test_a_seed_that_only_one_arm_brings_to_the_target_makes_that_arm_look_better():
    """Dropped, it would leave two ties; counted, it decides."""
    svd, random = reaching("svd", [5, 5, 2]), reaching(RANDOM, [5, 5, None])
    found, other = reached(svd, random, 1.0), reached(random, svd, 1.0)
    assert found
    assert found.difference
    assert (found.means, found.counts) == ((4.0, pytest.approx(20 / 3)), (3, 2))
    assert found.difference.mean == pytest.approx(-8 / 3)
    assert other
    assert other.difference
    assert other.difference.mean == -found.difference.mean


def test_the_horizon_is_what_every_training_has_made():
    long = StartArm(RANDOM, RANDOM, "", {0: trained(0, {0: 3.0, 20: 1.0})})
    short = StartArm("svd", "svd", "", {0: trained(0, {0: 3.0, 10: 1.0})})
    found = reached(short, long, 1.5)
    assert found
    assert (found.horizon, found.by_seed) == (10, {0: (7.5, None)})


def test_initial_and_best_losses_are_compared_seed_by_seed():
    svd, random = arm("svd", BETTER), arm(RANDOM, RANDOMS)
    assert paired(svd, random, "initial") == t_interval([0.0] * 3)
    assert paired(svd, random, "best") == t_interval([BETTER[seed] - RANDOMS[seed] for seed in (1, 2, 3)])
