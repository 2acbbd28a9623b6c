"""The interval over trainings and recordings: holds the truth about as often as it says, and is none for one value."""

import numpy as np
import pytest

from nfa.maths.statistics import crossed_bootstrap


def simulated(seed: int, rows: int, columns: int, spread: tuple[float, float, float]) -> np.ndarray:
    """A crossed random-effects model of mean 0: effects of rows and of columns, and noise of each entry."""
    random = np.random.default_rng(seed)
    of_row, of_column, noise = spread
    return (
        of_row * random.standard_normal((rows, 1))
        + of_column * random.standard_normal((1, columns))
        + noise * random.standard_normal((rows, columns))
    )


def coverage(rows: int, columns: int, spread: tuple[float, float, float]) -> float:
    """Share of 300 simulations whose interval holds 0."""
    found = [crossed_bootstrap(simulated(seed, rows, columns, spread), draws=500) for seed in range(300)]
    return float(np.mean([interval.low <= 0 <= interval.high for interval in found if interval]))


@pytest.mark.parametrize(
    ("rows", "columns", "spread"),
    [
        (3, 20, (0.3, 1.0, 0.3)),  # a few seeds of trainings that are much alike
        (5, 20, (0.3, 1.0, 0.3)),
        (5, 20, (0.0, 1.0, 0.3)),
        (1, 20, (0.0, 1.0, 0.3)),  # one training: recordings alone
        (20, 5, (1.0, 0.3, 0.3)),
        (12, 12, (0.5, 0.5, 0.5)),
    ],
)
def test_it_holds_the_true_mean_nearly_as_often_as_it_says(
    rows: int, columns: int, spread: tuple[float, float, float]
) -> None:
    assert 0.89 <= coverage(rows, columns, spread) <= 1.0


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_it_holds_it_where_few_trainings_are_all_that_matters(rows: int) -> None:
    """With the normal quantile it would be 74 % of three."""
    assert 0.89 <= coverage(rows, 20, (1.0, 0.1, 0.1)) <= 1.0


def test_its_width_is_that_of_the_variances_for_many_units() -> None:
    """Var of the mean = σ_r²/R + σ_c²/C + O(σ²/RC)."""
    values = simulated(1, 40, 60, (1.0, 0.5, 0.0))
    found = crossed_bootstrap(values, draws=2000)
    assert found
    of_rows, of_columns = values.mean(axis=1).var(ddof=1) / 40, values.mean(axis=0).var(ddof=1) / 60
    assert found.high - found.low == pytest.approx(2 * 2.0 * np.sqrt(of_rows + of_columns), rel=0.06)


@pytest.mark.parametrize("shape", [(1, 30), (30, 1)])
def test_one_row_or_one_column_leaves_the_other(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).standard_normal(shape)
    found = crossed_bootstrap(values)
    assert found
    assert found.mean == pytest.approx(values.mean())
    assert found.n == shape[1]
    assert found.high - found.low == pytest.approx(2 * 2.045 * values.std(ddof=1) / np.sqrt(30), rel=0.08)


def test_one_value_has_no_interval() -> None:
    assert crossed_bootstrap(np.array([[0.3]])) is None
    assert crossed_bootstrap(np.empty((1, 0))) is None


def test_equal_values_have_an_interval_of_length_zero() -> None:
    assert crossed_bootstrap(np.full((3, 4), 0.25))[:3] == (0.25, 0.25, 0.25)


def test_the_same_values_have_the_same_interval_and_another_seed_a_slightly_different_one() -> None:
    values = simulated(0, 4, 9, (1.0, 1.0, 1.0))
    before, state = values.copy(), np.random.get_state()[1].copy()
    first, again, other = (crossed_bootstrap(values, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first[1:3] == pytest.approx(other[1:3], abs=0.3)
    assert np.array_equal(values, before)
    assert np.array_equal(np.random.get_state()[1], state)


def test_shifted_and_scaled_values_shift_and_scale_it() -> None:
    values = simulated(3, 3, 8, (1.0, 1.0, 1.0))
    found, moved = crossed_bootstrap(values), crossed_bootstrap(5 + 2 * values)
    assert moved[:3] == pytest.approx([5 + 2 * value for value in found[:3]])


def test_more_confidence_is_wider() -> None:
    values = simulated(3, 3, 8, (1.0, 1.0, 1.0))
    narrow, wide = (crossed_bootstrap(values, confidence=share) for share in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high
