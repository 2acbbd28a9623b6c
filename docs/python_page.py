"""docs/python.md: the calls of `nfa` with their arguments, from their docstrings."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from markdown_text import cell, paragraph, table

import nfa
from nfa.notebook.table import Table

CALLS = (
    "watch", "track", "alignment", "gradient_directions", "gradient_flow", "gradient_gram", "results",
    "load_checkpoint", "config", "Supervised",
)  # fmt: skip


def python() -> str:
    """docs/python.md."""
    lines = ["# Calls from Python", "", "<!-- made by docs/generate.py from the docstrings; change them -->", ""]
    lines += paragraph(
        "What the calls of `nfa` take (`help(nfa.watch)` says it too, and what they raise). [Your own training "
        "loop](your_training_loop.md), [Notebooks](notebook.md) and [Your own model](your_model.md) show how they are "
        "used. `**options` have the meanings and the defaults of [analyze](parameters.md#analyze); only `parameters` "
        "is the `sites` of [gradient_directions](parameters.md#gradient_directions)."
    )
    for name in CALLS:
        lines += described(name, getattr(nfa, name))
    return "\n".join(lines)


def described(name: str, call: Callable[..., Any]) -> Iterator[str]:
    """The lines about a call: its first sentence, its arguments and the methods of what it returns."""
    yield from (f"## nfa.{name}", "", *paragraph(first(call)))
    rows = [(f"`{argument}`", default(call, argument), cell(meaning)) for argument, meaning in arguments(call).items()]
    yield from (*table(["argument", "default", "meaning"], rows), "")
    if methods := methods_of(call):
        named = ((f"`{name}({', '.join(taken(one))})`", cell(first(one))) for name, one in methods.items())
        yield from (*table(["method", "what it does"], named), "")


def methods_of(call: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The public methods of a class, or of the table that a function returns."""
    made = call if inspect.isclass(call) else inspect.signature(call).return_annotation
    if made is nfa.Supervised or not (inspect.isclass(call) or (inspect.isclass(made) and issubclass(made, Table))):
        return {}  # nfa calls the methods of Supervised
    own = {name: one for kind in reversed(made.__mro__) for name, one in vars(kind).items()}
    return {name: one for name, one in own.items() if inspect.isfunction(one) and not name.startswith("_")}


def taken(method: Callable[..., Any]) -> list[str]:
    """The arguments of a method as they are written, without the object itself."""
    return [str(one).partition(":")[0] for one in inspect.signature(method).parameters.values()][1:]


def first(call: Callable[..., Any]) -> str:
    """The first paragraph of a docstring."""
    return " ".join((inspect.getdoc(call) or "").split("\n\n")[0].split())


def arguments(call: Callable[..., Any]) -> dict[str, str]:
    """What a docstring says of each argument."""
    said = re.search(r"^Args:\n(.*?)(?:\n\n|\Z)", inspect.getdoc(call) or "", re.MULTILINE | re.DOTALL)
    found = re.findall(r"^ {4}(\**\w+): (.+?)(?=^ {4}[\w*]|\Z)", said[1] if said else "", re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found}


def default(call: Callable[..., Any], argument: str) -> str:
    """The default of an argument; empty where its meaning states it."""
    value = inspect.signature(call).parameters[argument.lstrip("*")].default
    if value is inspect.Parameter.empty:
        return "" if argument.startswith("*") else "required"
    return "" if callable(value) else f"`{value!r}`"
