"""What a metric series takes: finite values under keys that every store knows."""

import math
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from nfa.errors import Refusal

LONGEST = 200  # letters: MLflow takes 250, and what is measured of a metric has longer names
FOREIGN = re.compile(r"[^\w.\-: /]")  # letters that MLflow takes in no key


def check_name(name: Any) -> None:
    """`Refusal` for what no series can be called."""
    whole = isinstance(name, str) and 0 < len(name) <= LONGEST and posixpath.normpath(name) == name
    if not whole or name == "." or name.startswith(("/", "..")):
        got, allowed = f"a metric that is called {name!r:.60}", f"words such as val/accuracy, {LONGEST} letters at most"
        raise Refusal(got, allowed, "give it another name")


def key_of(name: str) -> str:
    """A name as it stands in keys."""
    return FOREIGN.sub("_", name)


def loggable(values: Mapping[str, float], step: int) -> dict[str, float]:
    """The values by the keys they are logged under: a letter that MLflow takes in no key, such as those in names of
    modules, is written as _.

    ValueError for a value that is not finite: an undefined one is left out by the caller.

    >>> loggable({"blocks[0]/h_vs_m": 0.5}, step=3)
    {'blocks_0_/h_vs_m': 0.5}
    """
    found: dict[str, float] = {}
    for name, value in values.items():
        key = key_of(name)
        if not math.isfinite(value):
            raise ValueError(f"{key} at step {step} is {value}; undefined values are left out, not logged")
        found.setdefault(key, value)
    return found
