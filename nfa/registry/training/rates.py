"""Learning-rate schedules: the factor of the first learning rate after so many updates (or epochs)."""

import math
from collections.abc import Callable

Rate = Callable[[int], float]


def stepwise(every: int, factor: float) -> Rate:
    """factor^⌊n / every⌋."""
    return lambda n: factor ** (n // every)


def always(_n: int) -> float:
    """1: the first learning rate."""
    return 1.0


def constant(_total: int) -> Rate:
    """Always 1."""
    return always


def linear(total: int) -> Rate:
    """1 − n / total: the last of `total` updates has 1 / total.

    >>> [linear(4)(n) for n in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    return lambda n: max(0.0, 1 - n / total)


def cosine(total: int) -> Rate:
    """½ (1 + cos(π n / total)); Loshchilov, Hutter 2017, arXiv 1608.03983, without restarts."""
    return lambda n: (1 + math.cos(math.pi * min(1.0, n / total))) / 2


RATES: dict[str, Callable[[int], Rate]] = {"linear": linear, "cosine": cosine, "constant": constant}
