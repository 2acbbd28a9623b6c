"""The docstring of whatever a user calls names its arguments, what it returns and what it raises."""

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

import nfa
from nfa import callbacks, maths, measures, notebook, reference, sinks, studies, testing, workloads

PACKAGES = (maths, measures, studies, notebook, reference, sinks, testing, workloads, callbacks)
DOORS = {name: getattr(nfa, name) for name in dir(nfa) if name in nfa._PLACES or name in nfa._OF_THE_REGISTRY}
PUBLIC_ERRORS = ("Refusal", "NfaError", "ValueError")


def modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(found.name)


def public(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Functions of a module, and classes with a constructor of their own."""
    for name, value in vars(module).items():
        mine = getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
        built = inspect.isclass(value) and "__init__" in vars(value) and not getattr(value, "_is_protocol", False)
        if mine and (inspect.isfunction(value) or built):
            yield f"{module.__name__}.{name}", value


CALLED = {f"nfa.{name}": value for name, value in DOORS.items()} | {
    name: value for package in PACKAGES for module in modules(package) for name, value in public(module)
}


def sections(documented: Callable[..., Any]) -> dict[str, str]:
    """The sections of a docstring in Google style by their heads."""
    text = inspect.getdoc(documented) or ""
    parts = re.split(r"^(Args|Attributes|Returns|Yields|Raises|Example):\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def missing(called: Callable[..., Any]) -> list[str]:
    """What the docstring does not tell."""
    told = sections(called)
    named = re.findall(r"^ {4}\**(\w+):", told.get("Args", ""), flags=re.M)
    lacking = [name for name in inspect.signature(called).parameters if name not in named]
    if not inspect.isclass(called):
        returned = str(inspect.signature(called).return_annotation)
        silent = returned.endswith(("None", "Iterator[None]")) and "|" not in returned
        lacking += [] if silent or {"Returns", "Yields"} & told.keys() else ["Returns"]
    return lacking + [error for error in raised(called) if error not in told.get("Raises", "")]


def raised(called: Callable[..., Any]) -> set[str]:
    """The public errors that a function's own body raises, or a class when it is created."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(called))).body
    parts = [tree] if inspect.isfunction(called) else [one for one in ast.walk(tree) if is_constructor(one)]
    nodes = (node for part in parts for node in ast.walk(part) if isinstance(node, ast.Raise))
    errors = (node.exc.func for node in nodes if isinstance(node.exc, ast.Call))
    return {error.id for error in errors if isinstance(error, ast.Name) and error.id in PUBLIC_ERRORS}


def is_constructor(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name in ("__init__", "__post_init__")


@pytest.mark.parametrize("name", CALLED)
def test_docstring_names_arguments_results_and_errors(name: str) -> None:
    assert missing(CALLED[name]) == []


def test_a_docstring_that_leaves_something_out_is_found() -> None:
    def halved(value: float, by: int) -> float:
        """Halve.

        Args:
            value: What is halved.
        """
        if by != 2:
            raise ValueError(by)
        return value / by

    assert missing(halved) == ["by", "Returns", "ValueError"]
