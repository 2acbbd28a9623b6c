"""What a metric series takes: finite values under keys that every store knows."""

import math
import operator
import posixpath
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from nfa.errors import Refusal
from nfa.masking import masked

LONGEST = 200  # letters: MLflow takes 250, and what is measured of a metric has longer names
LAST = 2**31
FOREIGN = re.compile(r"[^\w.\-: /]")  # letters that MLflow takes in no key


def check_name(name: Any) -> None:
    """`Refusal` for what no series can be called."""
    whole = isinstance(name, str) and 0 < len(name) <= LONGEST and posixpath.normpath(name) == name
    if not whole or name == "." or name.startswith(("/", "..")):
        got, allowed = f"a metric that is called {name!r:.60}", f"words such as val/accuracy, {LONGEST} letters at most"
        raise Refusal(got, allowed, "give it another name")


def count_of(name: str, value: Any) -> int:
    """A step or an epoch: a whole number, whichever library it is of; `Refusal` for anything else."""
    with suppress(TypeError):
        if 0 <= (found := int(operator.index(value))) < LAST:
            return found
    raise Refusal(f"{name}={value!r:.60}", "a whole number from 0 on", f"count: {name}=1, 2, 3 …")


def key_of(name: str) -> str:
    """A name as it stands in keys; a password in it is masked while it can still be told."""
    return FOREIGN.sub("_", masked(name)) if FOREIGN.search(name) else name


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
