"""Sites of many equal blocks, drawn together."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nfa.figures.training_analysis import Series
from nfa.levels import LEVELS
from nfa.plain_text import counted

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


class Shown(NamedTuple):
    """What a figure draws: series by key, the sites among them, and how they were made from the measured sites."""

    series: Mapping[str, Series]
    sites: list[str]
    said: str


def kind(site: str) -> str:
    """Return a site's path with a star in place of its block's number.

    >>> kind("model.layers.12.mlp.up_proj"), kind("layer_3")
    ('model.layers.*.mlp.up_proj', 'layer_3')
    """
    return _NUMBER.sub("*", site)


def some(sites: Sequence[str], most: int) -> list[str]:
    """Return all sites, or at most `most`, evenly spaced from the first to the last.

    >>> some("abcdefghi", most=5)
    ['a', 'c', 'e', 'g', 'i']
    """
    if len(sites) <= most:
        return list(sites)
    return [sites[round(index * (len(sites) - 1) / (most - 1))] for index in range(most)]


def shown(series: Mapping[str, Series], sites: Sequence[str], relations: Sequence[str], most: int) -> Shown:
    """Return all sites if there are at most `most`; otherwise means over blocks, or some of the sites if there are no
    blocks.

    A mean <kind>/<relation> is over the blocks that have a value; <key>_lo and <key>_hi are the lowest and highest.
    Levels of chance and of shared weights are means over the same blocks, where all of them have one.
    """
    if len(sites) <= most:
        return Shown(series, list(sites), "")
    kinds: dict[str, list[str]] = {}
    for site in sites:
        kinds.setdefault(kind(site), []).append(site)
    chosen = some(list(kinds), most)
    if len(kinds) == len(sites):
        return Shown(series, chosen, f"{len(chosen)} of {len(sites)} sites")
    found = dict(series)
    for name in chosen:
        for relation in relations:
            found |= _over_blocks(f"{name}/{relation}", series, [f"{site}/{relation}" for site in kinds[name]])
    said = f"means over the blocks of {len(sites)} sites"
    return Shown(found, chosen, said + (f"; {len(chosen)} of {len(kinds)} kinds" if len(chosen) < len(kinds) else ""))


def _over_blocks(key: str, series: Mapping[str, Series], blocks: Sequence[str]) -> dict[str, Series]:
    steps = sorted(set().union(*(series.get(block, {}) for block in blocks)))
    having = {step: [block for block in blocks if step in series.get(block, {})] for step in steps}
    values = {step: [series[block][step] for block in of] for step, of in having.items()}
    return {
        key: {step: _mean(of) for step, of in values.items()},
        f"{key}_lo": {step: min(of) for step, of in values.items()},
        f"{key}_hi": {step: max(of) for step, of in values.items()},
        **{f"{key}{end}": found for end in LEVELS if (found := _levels(series, having, end))},
    }


def _levels(series: Mapping[str, Series], having: Mapping[int, Sequence[str]], end: str) -> dict[int, float]:
    levels = {step: [series.get(f"{block}{end}", {}).get(step) for block in of] for step, of in having.items()}
    whole = {step: [level for level in of if level is not None] for step, of in levels.items()}
    return {step: _mean(of) for step, of in whole.items() if len(of) == len(levels[step])}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def alignment_title(title: str, conventions: Mapping[str, Any]) -> str:
    """Return the title of a figure of relations: examples, precision and output directions."""
    return f"{title}: {counted(conventions['examples'], 'example')}, {alignment_conventions(conventions)}"


def alignment_conventions(conventions: Mapping[str, Any]) -> str:
    """Return the precision, and the number of output directions unless they are all.

    >>> alignment_conventions({"precision": "float32", "directions": "64 random, seed 1"})
    'float32, 64 random directions'
    """
    directions = conventions["directions"]
    count = "" if directions == "all" else f", {directions.partition(',')[0]} directions"
    return f"{conventions['precision']}{count}"
