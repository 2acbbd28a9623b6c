"""Learning-rate schedules: the factor of the learning rate after n updates."""

import math
from collections.abc import Callable

Rate = Callable[[int], float]
SCHEDULES = ("constant", "cosine", "linear", "step")


def always(_n: int) -> float:
    """1: the learning rate stays as it is."""
    return 1.0


def stepwise(every: int, factor: float) -> Rate:
    """factor^⌊n / every⌋.

    >>> [stepwise(2, 0.5)(n) for n in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    return lambda n: factor ** (n // every)


def linear(total: int) -> Rate:
    """1 − n / total: the last of `total` updates has 1 / total.

    >>> [linear(4)(n) for n in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    return lambda n: max(0.0, 1 - n / total)


def cosine(total: int) -> Rate:
    """½ (1 + cos(π n / total)); Loshchilov, Hutter 2017, arXiv 1608.03983, without restarts."""
    return lambda n: (1 + math.cos(math.pi * min(1.0, n / total))) / 2


def scheduled(schedule: str, *, updates: int, warmup: int = 0, every: int = 1, factor: float = 1.0) -> Rate:
    """The schedule of that name over `updates` updates, the first `warmup` of which lead up to it.

    During warm-up the factor is (n + 1) / (warmup + 1); then linear and cosine fall over the updates that are left.
    `every` and `factor` are those of the schedule "step", which counts its steps from the first update on.

    >>> [round(scheduled("linear", updates=6, warmup=2)(n), 2) for n in range(7)]
    [0.33, 0.67, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    left = max(1, updates - warmup)
    if schedule == "step":
        falling, begin = stepwise(every, factor), 0
    else:
        falling, begin = {"constant": always, "linear": linear(left), "cosine": cosine(left)}[schedule], warmup
    return lambda n: min(1.0, (n + 1) / (warmup + 1)) * falling(max(0, n - begin))
