"""Learning-rate schedules: functions from the number n of updates so far to a factor of the learning rate."""

import math
from collections.abc import Callable

Rate = Callable[[int], float]
SCHEDULES = ("constant", "cosine", "linear", "step")


def always(_n: int) -> float:
    """Return 1: the learning rate stays as it is."""
    return 1.0


def stepwise(every: int, factor: float) -> Rate:
    """Return the schedule factor^⌊n / every⌋.

    >>> [stepwise(2, 0.5)(n) for n in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    return lambda n: factor ** (n // every)


def linear(total: int) -> Rate:
    """Return the schedule 1 − n / total, which gives the last of `total` updates the factor 1 / total.

    >>> [linear(4)(n) for n in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    return lambda n: max(0.0, 1 - n / total)


def cosine(total: int) -> Rate:
    """Return the schedule ½ (1 + cos(π n / total)); Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts."""
    return lambda n: (1 + math.cos(math.pi * min(1.0, n / total))) / 2


def scheduled(schedule: str, *, updates: int, warmup: int = 0, every: int = 1, factor: float = 1.0) -> Rate:
    """Return the schedule of that name, after a linear warm-up.

    During the warm-up the factor is multiplied by (n + 1) / (warmup + 1). "linear" and "cosine" fall over the updates
    after it, whereas "step" counts from the first update.

    Args:
        schedule: One of `SCHEDULES`.
        updates: The number of updates of the training.
        warmup: The number of updates of the warm-up.
        every: The number of updates after which "step" multiplies the learning rate.
        factor: What "step" multiplies it by.

    >>> [round(scheduled("linear", updates=6, warmup=2)(n), 2) for n in range(7)]
    [0.33, 0.67, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    left = max(1, updates - warmup)
    if schedule == "step":
        falling, begin = stepwise(every, factor), 0
    else:
        falling, begin = {"constant": always, "linear": linear(left), "cosine": cosine(left)}[schedule], warmup
    return lambda n: min(1.0, (n + 1) / (warmup + 1)) * falling(max(0, n - begin))
