"""What stands beside a value, under suffixes of its key: its error, and the levels that it is compared with."""

from collections.abc import Mapping
from typing import NamedTuple

LEVELS = ("_chance", "_chance_sd", "_shared", "_shared_sd")
SUFFIXES = ("_se", "_unbiased", *LEVELS)
OVER_SEEDS = ("_lo", "_hi", "_n")  # beside a mean over seeds: the ends of its 95 % t-interval, and their number


class Beside(NamedTuple):
    """What stands beside a value, in the order of `SUFFIXES`; None where there is none.

    Args:
        standard_error: The standard error over examples, random directions or seeds.
        unbiased: The value with norms that are corrected for the finite number of examples.
        chance: The mean over random rotations of one of the two matrices.
        chance_sd: The standard deviation over these rotations.
        shared: What the weights in both matrices explain: the mean over rotations of what stands between them.
        shared_sd: The standard deviation over these rotations.
    """

    standard_error: float | None = None
    unbiased: float | None = None
    chance: float | None = None
    chance_sd: float | None = None
    shared: float | None = None
    shared_sd: float | None = None


def is_beside(key: str) -> bool:
    """Return whether a key is that of an error or a level, and not of a value.

    >>> is_beside("layer_0/agop_nfm_chance_sd"), is_beside("layer_0/agop_nfm")
    (True, False)
    """
    return key.endswith(SUFFIXES)


def value_key(key: str) -> str:
    """Return the key of the value that an error or a level stands beside; other keys are unchanged.

    >>> value_key("layer_0/agop_nfm_chance_sd"), value_key("layer_0/agop_nfm")
    ('layer_0/agop_nfm', 'layer_0/agop_nfm')
    """
    ending = next((suffix for suffix in SUFFIXES if key.endswith(suffix)), "")
    return key.removesuffix(ending)


def beside(values: Mapping[str, float], key: str) -> Beside:
    """Return what stands beside the value of a key.

    >>> beside({"0/agop_nfm": 0.5, "0/agop_nfm_chance": 0.2}, "0/agop_nfm").chance
    0.2
    """
    return Beside(*(values.get(f"{key}{suffix}") for suffix in SUFFIXES))


def at_step(series: Mapping[str, Mapping[int, float]], step: int) -> dict[str, float]:
    """Return the values of a step by key.

    >>> at_step({"train/loss": {0: 2.5, 1: 1.5}, "0/agop_nfm": {0: 0.5}}, 1)
    {'train/loss': 1.5}
    """
    return {key: of_key[step] for key, of_key in series.items() if step in of_key}
