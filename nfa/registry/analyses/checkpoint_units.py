"""The unit in which checkpoints of analysed runs are counted: epoch or step."""

from collections.abc import Iterable, Mapping
from typing import Any


def unit_of(described: Mapping[str, Any]) -> str:
    """Return the unit that the config.json of an analysis states: "epoch" or "step"."""
    return str(described.get("unit", "epoch"))


def common_unit(units: Iterable[str]) -> str:
    """Return the unit if all are the same, else "checkpoint".

    >>> common_unit(["step", "step"]), common_unit(["step", "epoch"])
    ('step', 'checkpoint')
    """
    different = set(units)
    return different.pop() if len(different) == 1 else "checkpoint"
