"""Decide whether the code named by a stored run may be imported, and import it.

A run on a shared server may have been written by somebody else. Its module is imported automatically only if an
installed package has registered its name, or if its file lies in the folder where the command is typed and is bitwise
the one that the run was trained with.
"""

import importlib.util
import inspect
import shlex
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from nfa.content import file_sha256, json_digest
from nfa.errors import NfaError, Refusal, reason
from nfa.registry.families.custom.maker import Maker, by_path, file_of, find, in_folder
from nfa.registry.folders import is_caller_known, typed_folder

IMPORTED = "__nfa_digest__"  # attribute of modules imported here: the digest of their file
NAMED = "code that is named on the command line, registered, or unchanged in this folder since the training"
WATCHED = "watched"  # the workload of runs whose model was made by a user's program


def trusted(stored: Mapping[str, Any], typed: str) -> Maker:
    """Return the function that makes a stored run's workload: the `typed` one, or the run's own if it is trusted."""
    name = stored["workload"]
    if typed:
        return find(typed)
    if name == WATCHED:
        got = "a run of nfa.watch, which does not store how its model is made"
        raise Refusal(got, NAMED, "if you trust the code, name it: workload=my_lab:make")
    digest = stored.get("code", {}).get("file_digest", "")
    maker = _at_home(name, digest)
    if maker is None:
        raise Refusal(f"a run whose model is made by {name}, which {_trouble(name, digest)}", NAMED, _remedy(name))
    return maker


def _remedy(name: str) -> str:
    place, _, function = name.rpartition(":")
    if file_of(place):
        return f"if you trust the code, name it: workload={name}"
    go = "run this command in the folder of its file, or " if is_caller_known() else ""
    return f"if you trust the code, {go}name it in an analysis: {by_path(place, function)}"


def _at_home(name: str, digest: str) -> Maker | None:
    """Return the function if it is registered, or lies unchanged in the folder where the command is typed."""
    module = name.rpartition(":")[0]
    if not module:
        return find(name)
    file = _here(module)
    if file is None or file_sha256(file) != digest:
        return None
    return find(name)


def _here(module: str) -> Path | None:
    """Return the file of a module or path if it lies in that folder itself, not only as a link."""
    folder = typed_folder(".").resolve()
    file = typed_folder(module) if module.endswith(".py") else in_folder(module)
    return file if file and file.is_file() and file.resolve().is_relative_to(folder) else None


def _trouble(name: str, digest: str) -> str:
    file = _here(name.rpartition(":")[0])
    if file is None:
        return f"is not in {typed_folder('.').resolve()}"
    return f"has changed since the training: {file} is not the file that the run was trained with ({digest[:12]})"


def imported(maker: Maker) -> Callable[..., Any]:
    """Import the module and return the function; raise `Refusal` if it is not a plain function of that file."""
    module = _module(maker)
    function = getattr(module, maker.function, None)
    if not inspect.isfunction(function) or function.__module__ != module.__name__:
        got = f"{maker.name}, which is a {type(function).__name__} once {maker.file} has been imported"
        raise Refusal(got, "a plain function that is defined in that file", "define it with def, without a decorator")
    return function


def _module(maker: Maker) -> ModuleType:
    """Import exactly that file as it is now; other files beside it may be imported by it."""
    own = f"nfa_workload_{maker.digest[:12]}_{json_digest(str(maker.file))[:12]}"  # used if another module has its name
    for name in (maker.module, own):
        if (known := sys.modules.get(name)) is not None and _is(known, maker):
            return known
    folder = str(maker.file.parents[maker.module.count(".") + (maker.file.name == "__init__.py")])
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return _loaded(own if maker.module in sys.modules else maker.module, maker)
    except NfaError:
        raise
    except (Exception, SystemExit) as error:  # the user's file may raise anything
        got = f"workload={maker.name} ({maker.file} cannot be imported: {type(error).__name__}: {reason(error)})"
        trial = f"to see the error: python {shlex.quote(str(maker.file))}"
        raise Refusal(got, "a file that can be imported", trial) from error


def _is(module: ModuleType, maker: Maker) -> bool:
    """Return whether a module belongs to the file, and the file has not changed since it was imported."""
    same = bool(module.__file__) and Path(str(module.__file__)).resolve() == maker.file.resolve()
    return same and getattr(module, IMPORTED, maker.digest) == maker.digest


class _SourceAlone(SourceFileLoader):
    """Compile a file at each import: bytecode of an earlier text with the same length and second passes for that of
    the file, whose own text is the one that is trusted.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the source."""
        file = self.get_filename(fullname)
        return self.source_to_code(self.get_data(file), file)


def _loaded(name: str, maker: Maker) -> ModuleType:
    if "." in name:
        importlib.import_module(name.rpartition(".")[0])  # its package
    spec = importlib.util.spec_from_file_location(name, maker.file, loader=_SourceAlone(name, str(maker.file)))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    setattr(module, IMPORTED, maker.digest)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
