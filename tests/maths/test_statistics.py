"""Intervals: closed forms, coverage, and no interval where there is none."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from nfa.maths.statistics import share_interval, t_interval


def test_two_values_have_the_interval_of_the_cauchy_quantile():
    """With one degree of freedom t = tan(π (p − ½)): for 95 % tan(0.475 π) = 12.7062."""
    mean, low, high, n = t_interval([1.0, 3.0])
    assert (mean, n) == (2.0, 2)
    assert high - mean == pytest.approx(math.tan(0.475 * math.pi), rel=1e-12)
    assert mean - low == pytest.approx(high - mean, rel=1e-12)


def test_with_many_values_it_is_the_normal_interval():
    values = np.random.default_rng(0).standard_normal(20_000)
    mean, _, high, _ = t_interval(list(values))
    assert high - mean == pytest.approx(1.959964 * values.std(ddof=1) / math.sqrt(len(values)), rel=1e-4)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_it_holds_the_true_mean_as_often_as_it_says(confidence):
    """2,000 samples of 3: within 4 standard errors of the confidence."""
    samples = np.random.default_rng(1).standard_normal((2000, 3))
    intervals = [t_interval(list(sample), confidence) for sample in samples]
    share = np.mean([low <= 0 <= high for _, low, high, _ in intervals])
    assert abs(share - confidence) < 4 * math.sqrt(confidence * (1 - confidence) / 2000)


def test_equal_values_have_an_interval_of_length_zero():
    assert t_interval([0.25, 0.25, 0.25])[:3] == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_fewer_than_two_values_have_none(values):
    assert t_interval(values) is None


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (3, 7), (340, 360), (9000, 10000)])
def test_the_interval_of_a_share_is_that_of_wilson_and_of_scipy(hits, n):
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    share, low, high, count = share_interval(hits / n, n)
    assert (share, count) == (hits / n, n)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
