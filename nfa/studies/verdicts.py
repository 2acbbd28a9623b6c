"""At how many sites a relation exceeds what chance, and the same weights in both matrices, explain."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from nfa.levels import beside

Level = Literal["chance", "shared"]
ACCURACY = 0.01  # of a shared-weights level


def is_above(values: Mapping[str, float], key: str, level: Level) -> bool | None:
    """Return whether a value exceeds a level by more than 2 √(se² + sd²); None if either does not exist.

    Args:
        values: Values by metric key, with errors and levels under the suffixes of nfa/levels.py.
        key: The key of the value. Its unbiased estimate is compared where there is one.
        level: "chance" or "shared". The level of shared weights must also be exceeded by its accuracy, 0.01. Errors
            that are absent count as 0.

    Returns:
        Whether it is above.

    Example:
        >>> values = {"0/agop_nfm": 0.5, "0/agop_nfm_se": 0.03, "0/agop_nfm_chance": 0.4, "0/agop_nfm_chance_sd": 0.04}
        >>> is_above(values, "0/agop_nfm", "chance"), is_above(values, "0/agop_nfm", "shared")
        (False, None)
    """
    by = beside(values, key)
    height, spread = (by.chance, by.chance_sd) if level == "chance" else (by.shared, by.shared_sd)
    if key not in values or height is None:
        return None
    excess = (values[key] if by.unbiased is None else by.unbiased) - height
    least = ACCURACY if level == "shared" else 0.0
    return excess > max(least, 2 * math.hypot(by.standard_error or 0, spread or 0))


def verdict(runs: Sequence[Mapping[str, float]], sites: Sequence[str], relation: str) -> str:
    """Return at how many sites a relation is above both levels; of several runs a site counts if it is so in each.

    Args:
        runs: Values by metric key at one step, of each run.
        sites: The sites.
        relation: The name of the relation.

    Returns:
        The verdict in words; empty if no site has a chance level.

    Example:
        >>> values = {"layer_0/agop_nfm": 0.8, "layer_0/agop_nfm_chance": 0.1, "layer_0/agop_nfm_shared": 0.5}
        >>> verdict([values], ["layer_0", "layer_1"], "agop_nfm")
        'above chance in 1 of 1 layers, above the shared-weights level in 1; undefined in 1'
    """
    keys = [f"{site}/{relation}" for site in sites]
    chance, shared = _above(runs, keys, "chance"), _above(runs, keys, "shared")
    if not chance:
        return ""
    places = "layers" if all(re.fullmatch(r"layer_\d+", site) for site in sites) else "sites"
    among = "" if len(shared) == len(chance) else f" of {len(shared)}"
    weights = f"above the shared-weights level in {sum(shared)}{among}" if shared else "no shared-weights level"
    undefined = f"; undefined in {len(sites) - len(chance)}" if len(chance) < len(sites) else ""
    return f"above chance in {sum(chance)} of {len(chance)} {places}, {weights}{undefined}"


def _above(runs: Sequence[Mapping[str, float]], keys: Sequence[str], level: Level) -> list[bool]:
    """Return for each site where it is defined in every run whether it is above in every run."""
    found = [[is_above(values, key, level) for values in runs] for key in keys]
    return [all(of) for of in found if None not in of]
