"""What a metric series takes: finite values under keys that every store knows."""

import math
import re
from collections.abc import Mapping

FOREIGN = re.compile(r"[^\w.\-: /]")  # letters that MLflow takes in no key


def loggable(values: Mapping[str, float], step: int) -> dict[str, float]:
    """The values by the keys they are logged under: a letter that MLflow takes in no key, such as those in names of
    modules, is written as _.

    ValueError for a value that is not finite: an undefined one is left out by the caller.

    >>> loggable({"blocks[0]/h_vs_m": 0.5}, step=3)
    {'blocks_0_/h_vs_m': 0.5}
    """
    found: dict[str, float] = {}
    for name, value in values.items():
        key = FOREIGN.sub("_", name)
        if not math.isfinite(value):
            raise ValueError(f"{key} at step {step} is {value}; undefined values are left out, not logged")
        found.setdefault(key, value)
    return found
