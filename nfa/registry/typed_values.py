"""Typed words, parsed as values of a parameter's type."""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from nfa.errors import Refusal
from nfa.options import bounds

BOOLEANS = {"true": True, "false": False}
WRITTEN = {  # Python would also accept underscores and digits of other alphabets
    int: re.compile(r"[+-]?[0-9]+"),
    float: re.compile(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|inf|nan)"),
}
SEED_LIMIT = 2**63  # above every seed of a training
MOST_SEEDS = 1000
SEEDS = f"numbers from 0 to 2⁶³ − 1 and ranges a-b, comma-separated, each once, at most {MOST_SEEDS}"
Number = TypeVar("Number", int, float)


def value_of(item: "dataclasses.Field[Any]", hint: Any, text: str) -> Any:
    """Parse `text` as a value of type `hint` for a field; raise `Refusal` if it is not one."""
    kinds = kinds_of(hint)
    if text == "auto" and item.default == "auto":
        return text
    if bool in kinds:
        if text.lower() not in BOOLEANS:
            raise Refusal(f"{item.name}={text!r}", "true, false", f"{item.name}={str(item.default).lower()}")
        return BOOLEANS[text.lower()]
    number = number_in(hint)
    if number is None:
        return text
    try:
        return read_number(text, number)
    except ValueError:
        raise Refusal(f"{item.name}={text!r}", bounds(item), f"for example {item.name}={_example(item)}") from None


def read_number(text: str, kind: type[Number]) -> Number:
    """Parse an int or float of the digits 0 to 9; raise `ValueError` for other notations that Python accepts.

    >>> read_number("1e-3", float), read_number(" 7", int)
    (0.001, 7)
    """
    if not WRITTEN[kind].fullmatch(text.strip(" ")):
        raise ValueError(f"not a number: {text!r}")
    return kind(text)


def seed_list(text: str) -> list[int]:
    """Parse the grammar of all lists of seeds: numbers and ranges `a-b`, comma-separated, each seed once.

    Raises:
        Refusal: The text is something else, or names a seed that no training takes.

    >>> seed_list("1-3,9")
    [1, 2, 3, 9]
    """
    found: list[int] = []
    for part in text.split(","):
        span = _span(part.strip())
        if not span or not set(span).isdisjoint(found) or len(found) + len(span) > MOST_SEEDS:
            at = f" (at {part.strip()!r})" if "," in text else ""
            raise Refusal(f"seeds={text!r}{at}", SEEDS, "for example seeds=1-3, or seeds=1,2,7")
        found.extend(span)
    return found


def _span(part: str) -> range:
    """Return the seeds of one part of a list; none if it is not a number below the limit, or an ascending range."""
    match = re.fullmatch(r"([0-9]{1,19})(?:-([0-9]{1,19}))?", part)
    if match is None:
        return range(0)
    first, last = int(match[1]), int(match[2] or match[1])
    return range(first, last + 1) if last < min(SEED_LIMIT, first + MOST_SEEDS) else range(0)


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """Return the types that an annotation allows."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return typing.get_args(hint) if union else (hint,)


def number_in(hint: Any) -> type[int] | type[float] | None:
    """Return int or float if an annotation allows it; None for booleans and strings."""
    kinds = kinds_of(hint)
    if bool in kinds:
        return None
    return int if int in kinds else float if float in kinds else None


def _example(item: "dataclasses.Field[Any]") -> str:
    return "0.1" if item.default == "auto" else str(item.default)


def assignments(name: str, text: str) -> dict[str, str]:
    """Parse assignments such as `a=1,b=0-5,10`; an item without `=` is appended to the previous value.

    `name` is the parameter that holds the text.

    >>> assignments("fixed", "epochs=2,schedule=0-5,10")
    {'epochs': '2', 'schedule': '0-5,10'}
    """
    found: dict[str, str] = {}
    last = ""
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = (part.strip() for part in piece.partition("="))
        if equals and key in found:
            raise Refusal(f"{name}: {key} given twice", "each parameter once", f"remove one {key}=")
        if equals and key and value:
            found[key], last = value, key
        elif not equals and last:
            found[last] += f",{piece}"
        else:
            raise Refusal(f"{name}={text!r} (at {piece!r})", "NAME=VALUE, comma-separated", f"mend {piece!r}")
    return found


def known(name: str, parameter: str, allowed: Iterable[str]) -> None:
    """Raise `Refusal`, which suggests the nearest name, unless `parameter` (given in `name`) is one of `allowed`."""
    allowed = list(allowed)
    if parameter not in allowed:
        near = difflib.get_close_matches(parameter, allowed, n=1)
        remedy = f"did you mean {near[0]}?" if near else "see docs/parameters.md"
        raise Refusal(f"{name}: parameter {parameter!r}", ", ".join(allowed), remedy)
