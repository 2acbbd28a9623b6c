"""Means with confidence intervals."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64


class Interval(NamedTuple):
    """A mean over n values and a confidence interval around it."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Return the mean and its t-interval x̄ ± t s/√n, t the quantile of Student's distribution with n − 1 degrees of
    freedom.

    It is valid for values that are independent and about normally distributed, such as those of runs with different
    seeds.

    Args:
        values: The values.
        confidence: The confidence level.

    Returns:
        The mean and the interval; None for fewer than 2 values.

    Example:
        >>> t_interval([1.0, 3.0])
        Interval(mean=2.0, low=-10.706204736174694, high=14.706204736174694, n=2)
    """
    n = len(values)
    if n < 2:
        return None
    from scipy import stats

    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * spread
    return Interval(mean, mean - reach, mean + reach, n)


def share_interval(share: float, n: int, confidence: float = 0.95) -> Interval:
    """Return a share of n independent cases and Wilson's interval for the probability behind it (Wilson 1927).

    The interval holds the probabilities p with |share − p| ≤ z √(p (1 − p)/n), z the normal quantile; unlike
    share ± z √(share (1 − share)/n) it is valid for shares near 0 and 1 too.

    Args:
        share: The share, from 0 to 1.
        n: The number of cases.
        confidence: The confidence level.

    Returns:
        The share and the interval.

    Example:
        >>> [round(end, 4) for end in share_interval(0.9, 100)[1:3]]
        [0.8256, 0.9448]
    """
    from scipy import stats

    z = float(stats.norm.ppf((1 + confidence) / 2))
    wide = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / wide
    reach = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2) / wide
    return Interval(share, middle - reach, middle + reach, n)


def crossed_bootstrap(
    values: Float64[np.ndarray, "seeds recordings"], *, draws: int = 4000, seed: int = 0, confidence: float = 0.95
) -> Interval | None:
    """Return the mean over all entries and a bootstrap interval that resamples rows and columns.

    This is the pigeonhole bootstrap of Owen 2007. Rows are repeated trainings, columns are the recordings on which each
    was tested. A bootstrap of m units sees only (m − 1)/m of the variance between them, so deviations of row means and
    of column means are widened by √(m/(m − 1)). Few units estimate their variance poorly, so the interval is stretched
    from the normal quantile to Student's, with Satterthwaite's degrees of freedom. One row alone says nothing about the
    spread of trainings, and one column alone nothing about that of recordings.

    Args:
        values: A value for each training and recording [seeds, recordings].
        draws: The number of bootstrap samples.
        seed: The seed of the samples.
        confidence: The confidence level.

    Returns:
        The mean and the interval, with n the number of columns; None for a single value.
    """
    rows, columns = values.shape
    if rows * columns < 2:
        return None
    mean, of_rows, of_columns = values.mean(), values.mean(axis=1), values.mean(axis=0)
    wide = values + _widened(of_rows - mean)[:, None] + _widened(of_columns - mean)[None]
    random = np.random.default_rng(seed)
    drawn_rows = random.multinomial(rows, np.full(rows, 1 / rows), size=draws)
    drawn_columns = random.multinomial(columns, np.full(columns, 1 / columns), size=draws)
    means = ((drawn_rows @ (wide - mean)) * drawn_columns).sum(axis=1) / (rows * columns)
    quantile = (1 + confidence) / 2
    low, high = _stretch(of_rows, of_columns, quantile) * np.quantile(means, [1 - quantile, quantile])
    return Interval(float(mean), float(mean + low), float(mean + high), columns)


def _widened(deviations: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
    """Return what must be added to deviations to make them √(m/(m − 1)) times as large."""
    m = len(deviations)
    return deviations * (math.sqrt(m / (m - 1)) - 1 if m > 1 else 0.0)


def _stretch(of_rows: Float64[np.ndarray, " r"], of_columns: Float64[np.ndarray, " c"], quantile: float) -> float:
    """Return Student's quantile divided by the normal quantile, for the sum of the variances of two means."""
    known = [
        (float(means.var(ddof=1)) / len(means), len(means) - 1) for means in (of_rows, of_columns) if len(means) > 1
    ]
    doubt = sum(variance**2 / freedom for variance, freedom in known)
    if not doubt:
        return 1.0
    freedom = sum(variance for variance, _ in known) ** 2 / doubt
    from scipy import stats

    return float(stats.t.ppf(quantile, freedom) / stats.norm.ppf(quantile))
