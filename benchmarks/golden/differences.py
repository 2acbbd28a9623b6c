"""What is another in one record than in another, in few lines."""

from collections.abc import Iterator, Mapping
from itertools import zip_longest

from benchmarks.golden.stores import Kinds

LINES, WIDTH, ABSENT = 40, 100, "(absent)"
EACH = 3  # keys that are told of a run's metrics, its tags, …


def differences(got: Mapping[str, Kinds], stored: Mapping[str, Kinds], *, most: int = LINES) -> list[str]:
    """Lines that say which run, which kind of thing and which key; the number of those left out comes last."""
    lines = [line for name in _both(got, stored) for line in _of_run(name, got.get(name), stored.get(name))]
    left = len(lines) - most
    return lines if left <= 0 else [*lines[:most], f"… and {left} more"]


def _of_run(name: str, got: Kinds | None, stored: Kinds | None) -> Iterator[str]:
    if got is None or stored is None:
        yield f"{name}: {'not there any more' if got is None else 'new'}"
        return
    for kind in _both(got, stored):
        ours, theirs = got.get(kind, {}), stored.get(kind, {})
        keys = [key for key in _both(ours, theirs) if ours.get(key, ABSENT) != theirs.get(key, ABSENT)]
        for key in keys[:EACH]:
            one, other = _first(ours.get(key, ABSENT), theirs.get(key, ABSENT))
            yield f"{name}  {kind}  {key}: got {one[:WIDTH]!r}, stored {other[:WIDTH]!r}"
        if len(keys) > EACH:
            yield f"{name}  {kind}: {len(keys) - EACH} more of {len(ours.keys() | theirs.keys())}"


def _both(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """Keys of both, in their order."""
    return list(dict.fromkeys([*other, *one]))


def _first(got: str, stored: str) -> tuple[str, str]:
    """The first line or word at which two texts differ, as both have it; all of a text that one does not have."""
    if ABSENT in (got, stored):
        return got, stored
    between = "\n" if "\n" in stored else " "
    pairs = zip_longest(got.split(between), stored.split(between), fillvalue=ABSENT)
    return next(((one, other) for one, other in pairs if one != other), (got, stored))
