"""The grammar of objectives and constraints on logged metrics."""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from nfa.bookkeeping import is_bookkeeping
from nfa.errors import Refusal
from nfa.levels import is_beside
from nfa.registry.families.registry import families
from nfa.registry.typed_values import read_number
from nfa.relations import RELATIONS

DIRECTIONS = ("minimize", "maximize")
SMALL = ("loss", "undefined")  # words in the last part of a key of which less is better
REDUCTIONS = "last, best, or mean:K (of the last K)"
_REDUCTION = re.compile(r"last|best|mean:([1-9][0-9]{0,5})")
_CONSTRAINT = re.compile(r"\s*([^<>=\s]+)\s*(<=|>=|<|>)\s*([^<>=\s]+)\s*")


@dataclass(frozen=True)
class StudyObjective:
    """A metric key, or a glob (the mean over its keys), reduced over the steps of a run to one number.

    `reduction` is "last", "best", or "mean" of the `last` values.
    """

    key: str
    maximise: bool
    reduction: str = "last"
    last: int = 1


@dataclass(frozen=True)
class Constraint:
    """A bound on the last value of a metric key, or of the mean over a glob's keys."""

    key: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.key}{self.sign}{self.bound:g}"


def split_keys(objective: str) -> list[str]:
    """Split comma-separated metric keys or globs; raise `Refusal` if one is empty or repeated."""
    keys = [key.strip() for key in objective.split(",")]
    if not all(keys) or len(set(keys)) < len(keys):
        raise Refusal(f"objective={objective!r}", "distinct metric keys, comma-separated", "objective=val/loss")
    return keys


def parse_objectives(keys: Sequence[str], direction: str, reduction: str) -> tuple[StudyObjective, ...]:
    """Parse objectives; directions and reductions are comma-separated, one for all or one per objective."""
    directions = _each("direction", direction, keys)
    reductions = _each("reduction", reduction, keys)
    return tuple(
        StudyObjective(key, _maximise(key, way), *_reduction(how))
        for key, way, how in zip(keys, directions, reductions, strict=True)
    )


def _each(name: str, text: str, keys: Sequence[str]) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) not in (1, len(keys)):
        raise Refusal(
            f"{name}={text!r} for {len(keys)} objectives", "one for all, or one per objective", f"{name}=auto"
        )
    return parts * (len(keys) // len(parts))


def _maximise(key: str, direction: str) -> bool:
    if direction in DIRECTIONS:
        return direction == "maximize"
    if direction != "auto":
        near = difflib.get_close_matches(direction, DIRECTIONS, n=1)
        raise Refusal(f"direction={direction!r}", f"auto, {', '.join(DIRECTIONS)}", f"direction={(*near, 'auto')[0]}")
    more = more_is_better(key)
    if more is None:
        allowed = f"{' or '.join(DIRECTIONS)}, because the key does not tell which is better"
        raise Refusal(f"direction=auto for {key}", allowed, "direction=minimize")
    return more


def more_is_better(key: str) -> bool | None:
    """Return whether a higher value of a metric is better; None if its key does not tell.

    >>> more_is_better("val/loss"), more_is_better("val/accuracy"), more_is_better("flow/grad_norm")
    (False, True, None)
    """
    last = key.rpartition("/")[2]
    if any(part in last for part in SMALL):
        return False
    return True if any(part in last for part in (*_qualities(), *RELATIONS)) else None


def _qualities() -> list[str]:
    """Return last parts of keys of which more is better."""
    return [one.quality.key.rpartition("/")[2] for one in families() if one.quality]


def _reduction(text: str) -> tuple[str, int]:
    match = _REDUCTION.fullmatch(text)
    if match is None:
        raise Refusal(f"reduction={text!r}", REDUCTIONS, "reduction=last")
    return (text, 1) if match[1] is None else ("mean", int(match[1]))


def parse_constraints(text: str) -> tuple[Constraint, ...]:
    """`flow/grad_norm<10,val/accuracy>=0.9`; empty = none."""
    return tuple(_constraint(part, text) for part in text.split(",")) if text.strip() else ()


def _constraint(part: str, text: str) -> Constraint:
    match = _CONSTRAINT.fullmatch(part)
    try:
        bound = read_number(match[3], float) if match else math.nan
    except ValueError:
        bound = math.nan
    if match is None or not math.isfinite(bound):
        got = f"constraint={text!r} (at {part.strip()!r})"
        raise Refusal(got, "KEY<NUMBER with <, <=, > or >=, comma-separated", "constraint=flow/grad_norm<10")
    return Constraint(match[1], match[2], bound)


def keys_of(pattern: str, logged: Sequence[str]) -> list[str]:
    """Return the keys of `logged` that a key or glob matches; keys whose number is not known yet are globs in `logged`.

    Errors and levels are matched only by a pattern that ends as their keys do.

    >>> keys_of("layer_*/agop_*", ["val/loss", "layer_0/agop_nfm", "layer_0/agop_nfm_chance", "layer_1/agop_nfm"])
    ['layer_0/agop_nfm', 'layer_1/agop_nfm']
    """
    among = [key for key in logged if is_beside(pattern) or not is_beside(key)]
    return [key for key in among if fnmatchcase(key, pattern) or ("*" in key and fnmatchcase(pattern, key))]


def check_logged(name: str, pattern: str, logged: Sequence[str]) -> None:
    """Raise `Refusal`, with similar names and all logged keys, for a key or glob without a match."""
    if keys_of(pattern, logged):
        return
    shown = list(dict.fromkeys(re.sub(r"\d+", "*", key) for key in logged))
    results = dict.fromkeys(key for key in [*logged, *shown] if not is_bookkeeping(key))
    near = difflib.get_close_matches(pattern, results, n=3, cutoff=0.5)
    remedy = f"did you mean {' or '.join(near)}?" if near else f"{name}={shown[0]}"
    raise Refusal(f"{name}={pattern} (no run logs it)", ", ".join(shown), remedy)
