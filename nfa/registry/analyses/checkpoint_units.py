"""What the checkpoints of analysed runs are counted in."""

from collections.abc import Iterable, Mapping
from typing import Any


def unit_of(described: Mapping[str, Any]) -> str:
    """What the config.json of an analysis says: epoch or step."""
    return str(described.get("unit", "epoch"))


def common_unit(units: Iterable[str]) -> str:
    """The one unit, or the neutral word.

    >>> common_unit(["step", "step"]), common_unit(["step", "epoch"])
    ('step', 'checkpoint')
    """
    different = set(units)
    return different.pop() if len(different) == 1 else "checkpoint"
