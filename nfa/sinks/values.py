"""Checks of what a metric series can hold: finite values, under keys that every store accepts."""

import math
import operator
import posixpath
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from nfa.errors import Refusal
from nfa.masking import masked

LONGEST = 200  # characters: MLflow accepts 250, and values derived from a metric have longer names
LAST = 2**31
FOREIGN = re.compile(r"[^\w.\-: /]")  # characters that MLflow refuses in keys


def check_name(name: Any) -> None:
    """Check that a name can be that of a series.

    Args:
        name: The name of a metric.

    Raises:
        Refusal: It is no text, too long, or looks like a path to somewhere else.
    """
    whole = isinstance(name, str) and 0 < len(name) <= LONGEST and posixpath.normpath(name) == name
    if not whole or name == "." or name.startswith(("/", "..")):
        got, allowed = f"a metric named {name!r:.60}", f"a name such as val/accuracy, of at most {LONGEST} characters"
        raise Refusal(got, allowed, "rename it")


def count_of(name: str, value: Any) -> int:
    """Convert a step or an epoch to an int, whichever library the number comes from.

    Args:
        name: What the number is called in an error.
        value: The number.

    Returns:
        The whole number.

    Raises:
        Refusal: It is not a whole number from 0 to 2³¹ − 1.
    """
    with suppress(TypeError):
        if 0 <= (found := int(operator.index(value))) < LAST:
            return found
    raise Refusal(f"{name}={value!r:.60}", "a whole number from 0 on", f"pass {name}=0, 1, 2 …")


def key_of(name: str) -> str:
    """Return a name as it is written in metric keys: passwords are masked, and characters that MLflow refuses become _.

    Args:
        name: A name, such as the path of a module.

    Returns:
        The name as a part of a key.
    """
    return FOREIGN.sub("_", masked(name)) if FOREIGN.search(name) else name


def loggable(values: Mapping[str, float], step: int) -> dict[str, float]:
    """Return values under the keys they are logged by: characters that MLflow refuses become _.

    Args:
        values: Values by name; the caller leaves out undefined ones.
        step: The step, for the error.

    Returns:
        The values by metric key.

    Raises:
        ValueError: A value is not finite.

    Example:
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
