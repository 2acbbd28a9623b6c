"""Words as they are typed, read as values of a parameter's type."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any

from nfa.config.options import bounds
from nfa.errors import Refusal

BOOLEANS = {"true": True, "false": False}


def value_of(item: "dataclasses.Field[Any]", hint: Any, text: str) -> Any:
    """What `text` says for a field of type `hint`; `Refusal` for what is none of it."""
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
        return number(text)
    except ValueError:
        raise Refusal(f"{item.name}={text!r}", bounds(item), f"for example {item.name}={_example(item)}") from None


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """The types that an annotation allows."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return typing.get_args(hint) if union else (hint,)


def number_in(hint: Any) -> type[int] | type[float] | None:
    """int or float, where an annotation allows one of them; None for true or false and for words."""
    kinds = kinds_of(hint)
    if bool in kinds:
        return None
    return int if int in kinds else float if float in kinds else None


def _example(item: "dataclasses.Field[Any]") -> str:
    return "0.1" if item.default == "auto" else str(item.default)


def assignments(name: str, text: str) -> dict[str, str]:
    """`a=1,b=0-5,10` by name; a piece without `=` continues the value before it. `name` is the parameter it is of.

    >>> assignments("fixed", "epochs=2,schedule=0-5,10")
    {'epochs': '2', 'schedule': '0-5,10'}
    """
    found: dict[str, str] = {}
    last = ""
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = (part.strip() for part in piece.partition("="))
        if equals and key in found:
            raise Refusal(f"{name}: {key} given twice", "each parameter once", f"keep one {key}=")
        if equals and key and value:
            found[key], last = value, key
        elif not equals and last:
            found[last] += f",{piece}"
        else:
            raise Refusal(f"{name}={text!r} (at {piece!r})", "NAME=VALUE, comma-separated", f"mend {piece!r}")
    return found


def known(name: str, parameter: str, allowed: Iterable[str]) -> None:
    """`Refusal` for a parameter, named in `name`, that is none of `allowed`; it names the nearest."""
    allowed = list(allowed)
    if parameter not in allowed:
        near = difflib.get_close_matches(parameter, allowed, n=1)
        remedy = f"did you mean {near[0]}?" if near else "see docs/parameters.md"
        raise Refusal(f"{name}: parameter {parameter!r}", ", ".join(allowed), remedy)
