"""Arms of a comparison: what a training does not have is not left out of what is said of its arm."""

import math

import pytest

from nfa.registry.analyses.arms import Arm, factor_interval, score_difference, score_interval, unscored

KEY = "flow/front_output_ratio"


def arm(label: str, ratios: list[float | None], *, failed: int = 0) -> Arm:
    """A training for each ratio at epoch 5 (None: undefined), with an r of two recordings."""
    series = [{KEY: {} if ratio is None else {5: ratio}} for ratio in ratios]
    recordings = [{"a": 0.1 + place, "b": 0.2} for place in range(len(ratios))]
    return Arm(label, list(range(len(ratios))), series, recordings, (), failed)


def test_a_factor_is_a_geometric_mean_over_the_seeds_of_both() -> None:
    found = factor_interval(arm("x", [2.0, 8.0]), arm("v1", [1.0, 1.0, 7.0]), KEY, 5)
    assert found
    assert (found.mean, found.n) == (pytest.approx(4.0), 2)
    assert found.high == pytest.approx(4 * math.exp(12.7062047 * math.log(2)), rel=1e-6)


@pytest.mark.parametrize("without", [None, 0.0])
def test_a_gradient_that_has_vanished_in_one_seed_leaves_no_factor_of_the_others(without: float | None) -> None:
    assert factor_interval(arm("x", [2.0, 2.1, without]), arm("v1", [1.0, 1.0, 1.0]), KEY, 5) is None
    assert factor_interval(arm("x", [2.0, 2.1, 2.2]), arm("v1", [1.0, without, 1.0]), KEY, 5) is None


def test_where_a_training_failed_there_is_no_r_of_the_others() -> None:
    whole, broken = arm("v1", [1.0, 1.0]), arm("x", [1.0, 1.0], failed=1)
    assert score_interval(whole, seed=0) is not None
    assert score_interval(broken, seed=0) is None
    assert score_difference(broken, whole, seed=0) is score_difference(whole, broken, seed=0) is None


def test_recordings_that_some_trainings_have_no_r_of_are_named() -> None:
    one, other = arm("v1", [1.0]), arm("x", [1.0])
    other.scores[0].pop("b")  # type: ignore[attr-defined]
    assert unscored([one, other]) == ["b"]
    assert unscored([one]) == unscored([]) == []
