"""The function that makes a workload, named "module:function", found and parsed without importing its file."""

import ast
import importlib.util
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from pathlib import Path

from nfa.content import file_sha256
from nfa.errors import Refusal, reason
from nfa.registry.folders import is_caller_known, typed_folder
from nfa.registry.ready import READY
from nfa.registry.typed_values import BOOLEANS, assignments, known, read_number

GROUP = "nfa.workloads"  # entry-point group by which packages register workloads
ALLOWED = "module:function of a file in the folder where the command is typed, or of an installed module"
SHAPE = re.compile(r"(.+\.py|[^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")
Value = int | float | str | bool
KINDS: Mapping[str, type[Value]] = {"bool": bool, "int": int, "float": float, "str": str}


@dataclass(frozen=True)
class Argument:
    """An argument of the function; `kind` is int, float, str or bool if its annotation or default tells, else None."""

    name: str
    kind: type[Value] | None
    required: bool
    default: Value | None = None

    def read(self, text: str) -> Value:
        """Parse a typed value; raise `Refusal` if it is of another type."""
        kinds = (self.kind,) if self.kind else KINDS.values()
        for kind in kinds:
            try:
                return _read(text, kind)
            except (ValueError, KeyError):
                continue
        got, allowed = f"workload_args: {self.name}={text}", {"bool": "true or false"}
        said = getattr(self.kind, "__name__", "")
        raise Refusal(got, allowed.get(said, f"a value of type {said}"), f"correct {self.name}={text}")


def _read(text: str, kind: type[Value]) -> Value:
    if kind is bool:
        return BOOLEANS[text.lower()]
    return text if kind is str else read_number(text, int) if kind is int else read_number(text, float)


@dataclass(frozen=True)
class Maker:
    """A function in a file, with the arguments of its `def`.

    `registered` is true for ready-made workloads and those registered by an installed package (group nfa.workloads).
    """

    name: str
    module: str
    function: str
    file: Path
    arguments: Mapping[str, Argument]
    any_argument: bool  # **options
    registered: bool

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its file."""
        return file_sha256(self.file)

    def read(self, text: str) -> dict[str, Value]:
        """Parse `workload_args` into values in the function's order; raise `Refusal` if one is unknown or missing."""
        given = assignments("workload_args", text)
        for name in given:
            if not self.any_argument:
                known(f"workload_args of {self.name}", name, self.arguments)
        missing = [name for name, one in self.arguments.items() if one.required and name not in {*given, "seed"}]
        if missing:
            got = f"{self.name} without {', '.join(missing)}"
            raise Refusal(got, "a value for every argument without a default", f"workload_args={missing[0]}=…")
        order = [*self.arguments, *(name for name in given if name not in self.arguments)]
        return {name: self.argument(name).read(given[name]) for name in order if name in given}

    def argument(self, name: str) -> Argument:
        """Return the argument of a name; one that is passed to **options may have any type."""
        return self.arguments.get(name) or Argument(name, None, required=False)


def written(values: Mapping[str, Value]) -> str:
    """Return the `workload_args` that give these values; raise `Refusal` for values that cannot be typed.

    >>> written({"width": 32, "bias": True, "act": "relu"})
    'width=32,bias=true,act=relu'
    """
    for name, value in values.items():
        if not isinstance(value, int | float | str):
            remedy = f"pass a number or word from which {name} can be made"
            raise Refusal(f"{name}={value!r}", "numbers, booleans and words", remedy)
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}
    if typed := ",".join(f"{name}={text}" for name, text in texts.items()):
        found = assignments("workload_args", typed)
        if found != texts:
            name = next(name for name in texts if found.get(name) != texts[name])
            allowed = "numbers, booleans, and words without = and ,"
            raise Refusal(f"{name}={values[name]!r}", allowed, "choose another word")
    return typed


def registered() -> dict[str, str]:
    """Return "module:function" of all registered workloads: ready-made ones, and those of installed packages."""
    return {point.name: point.value for point in entry_points(group=GROUP)} | READY


def find(name: str) -> Maker:
    """Find a function by its name; raise `Refusal` if there is none. Only packages around its module are imported."""
    places = registered()
    match = SHAPE.fullmatch(places.get(name, name))
    if match is None:
        raise Refusal(f"workload={name}", f"{ALLOWED}; or {', '.join(places)}", "workload=my_lab:make")
    place, function = match.groups()
    file = file_of(place, installed_only=name in places)
    if file is None:
        raise _absent(name, place, function)
    arguments, any_argument = _arguments(name, file, function)
    module = file.stem if place.endswith(".py") else place
    return Maker(name, module, function, file, arguments, any_argument, registered=name in places)


def by_path(place: str, function: str) -> str:
    """Return what to type for a function in a file of another folder.

    >>> by_path("labs.my_lab", "make"), by_path("../my_lab.py", "make")
    ('workload=/path/labs/my_lab.py:make', 'workload=/path/my_lab.py:make')
    """
    file = Path(place).name if place.endswith(".py") else place.replace(".", "/") + ".py"
    return f"workload=/path/{file}:{function}"


def _absent(name: str, place: str, function: str) -> Refusal:
    typed = by_path(place, function)
    where = typed_folder(place) if place.endswith(".py") else f"{place} in {typed_folder('.').resolve()}"
    if is_caller_known() or Path(place).is_absolute():
        got = f"workload={name} (there is no {where})"
        return Refusal(got, ALLOWED, f"check the name, or give the file's full path: {typed}")
    got = f"workload={name} (there is no {where}; MLflow does not pass on the folder in which the command was typed)"
    allowed = "the full path of a file, or module:function of an installed module"
    return Refusal(got, allowed, f"{typed}; or install nfa beside mlflow, so that its plugin passes on the folder")


def file_of(place: str, *, installed_only: bool = False) -> Path | None:
    """Return the file of a path or module, in the folder where the command is typed or else installed."""
    if place.endswith(".py"):
        file = typed_folder(place).resolve()
        return file if file.is_file() else None
    here = None if installed_only else in_folder(place)
    return here or _installed(place)


def in_folder(module: str) -> Path | None:
    """Return the file of a module in the folder where the command is typed, or None."""
    stem = typed_folder(".").resolve().joinpath(*module.split("."))
    found = [file for file in (stem.with_suffix(".py"), stem / "__init__.py") if module and file.is_file()]
    return found[0] if found else None


def _installed(module: str) -> Path | None:
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
        for depth in range(len(below)):
            name = ".".join([top, *below[: depth + 1]])
            spec = PathFinder.find_spec(name, spec.submodule_search_locations) if spec else None
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _arguments(name: str, file: Path, function: str) -> tuple[dict[str, Argument], bool]:
    """Return the arguments of the last top-level function of that name, and whether it has **options."""
    try:
        body = ast.parse(file.read_bytes(), str(file)).body
    except (SyntaxError, ValueError) as error:
        raise Refusal(f"workload={name} ({file}: {reason(error)})", "a valid Python file", "correct it") from None
    defined = {one.name: one for one in body if isinstance(one, ast.FunctionDef)}
    if function not in defined:
        got = f"workload={name} ({file} defines no function {function} of its own)"
        allowed = f"its top-level functions: {', '.join(defined) or 'none'}"
        raise Refusal(got, allowed, "define a function at the top level of the file that returns the workload")
    if defined[function].decorator_list:
        raise Refusal(f"workload={name} ({function} has a decorator)", "a plain function", "remove the decorator")
    signature = defined[function].args
    if signature.posonlyargs:
        got = f"workload={name} ({function} has positional-only arguments)"
        raise Refusal(got, "arguments that can be given by name", f"remove / from def {function}(…)")
    plain = signature.args
    without: list[ast.expr | None] = [None] * (len(plain) - len(signature.defaults))
    pairs = [*zip(plain, [*without, *signature.defaults], strict=True)]
    pairs += zip(signature.kwonlyargs, signature.kw_defaults, strict=True)
    found = {one.arg: _argument(one, default) for one, default in pairs}
    return found, signature.kwarg is not None


def _argument(argument: ast.arg, default: ast.expr | None) -> Argument:
    value = _literal(default)
    said = _types(argument.annotation) - {"None"} if argument.annotation else {type(value).__name__}
    kind = KINDS.get(next(iter(said))) if len(said) == 1 else None
    return Argument(argument.arg, kind, required=default is None, default=value)


def _types(annotation: ast.expr) -> set[str]:
    """Return the names of the types that an annotation allows; complex annotations are returned as they are.

    >>> sorted(_types(ast.parse("Optional[int] | 'float'", mode="eval").body))
    ['None', 'float', 'int']
    """
    match annotation:
        case ast.Constant(value=str(text)):
            with suppress(SyntaxError):
                return _types(ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _types(left) | _types(right)
        case ast.Subscript(value=outer, slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            match ast.unparse(outer).rpartition(".")[2]:
                case "Optional" | "Union":
                    return {"None"}.union(*map(_types, parts))
                case "Literal":
                    return {type(_literal(part)).__name__ for part in parts}
    return {ast.unparse(annotation)}


def _literal(default: ast.expr | None) -> Value | None:
    try:
        value = ast.literal_eval(default) if default is not None else None
    except (ValueError, TypeError):  # not a literal, such as a name or a call
        return None
    return value if isinstance(value, int | float | str | bool) else None
