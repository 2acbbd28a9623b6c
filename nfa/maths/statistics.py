"""Means that say how sure they are."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats


class Interval(NamedTuple):
    """A mean over n values and the interval around it."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """x̄ ± t s/√n, t the quantile of Student's distribution with n − 1 degrees of freedom; None for fewer than 2 values.

    It holds for values that are independent and about normally distributed, such as runs that differ in their seed.

    >>> t_interval([1.0, 3.0])
    Interval(mean=2.0, low=-10.706204736174694, high=14.706204736174694, n=2)
    """
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * spread
    return Interval(mean, mean - reach, mean + reach, n)
