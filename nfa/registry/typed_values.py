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


def whole_numbers(name: str, text: str) -> list[int]:
    """Parse distinct whole numbers ≥ 0, comma-separated; raise `Refusal` for anything else."""
    parts = [part.strip() for part in text.split(",")]
    found = [int(part) for part in parts if re.fullmatch(r"[0-9]+", part)]
    if len(set(found)) < len(parts):
        raise Refusal(f"{name}={text!r}", "distinct whole numbers ≥ 0, comma-separated", f"{name}=1,2,3")
    return found


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
