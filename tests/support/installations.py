"""Installations of nfa that lack packages, pretended in a new process: what is not in them cannot be imported there."""

import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.support.processes import ROOT, environment_of_tests


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def requirements(extra: str = "") -> dict[str, Requirement]:
    """What pyproject.toml asks for, by name: of the project, or of one of its extras, with those that it includes."""
    said = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, Requirement] = {}
    for line in said["optional-dependencies"][extra] if extra else said["dependencies"]:
        if (asked := Requirement(line)).name == "nfa":
            for other in sorted(asked.extras):
                found |= requirements(other)
        else:
            found[canonical(asked.name)] = asked
    return found


def needed(asked: list[Requirement]) -> set[str]:
    """Names of all that pip would install for some requirements."""
    found: set[tuple[str, frozenset[str]]] = set()
    while asked:
        one = asked.pop()
        key = (canonical(one.name), frozenset(one.extras))
        if key not in found:
            found.add(key)
            asked += _of(one)
    return {name for name, _ in found}


def _of(one: Requirement) -> list[Requirement]:
    try:
        lines = [Requirement(line) for line in metadata.requires(one.name) or []]
    except metadata.PackageNotFoundError:  # then it cannot be imported either
        return []
    return [line for line in lines if not line.marker or any(map(line.marker.evaluate, _extras(one)))]


def _extras(one: Requirement) -> list[dict[str, str]]:
    return [{"extra": extra} for extra in ("", *one.extras)]


@cache
def absent(*extras: str) -> list[str]:
    """Modules that are installed here and would not be with nothing but nfa[extras]."""
    asked = [line for extra in ("", *extras) for line in requirements(extra).values()]
    there = {"nfa", *needed(asked)}
    known = metadata.packages_distributions()
    return sorted(module for module, owners in known.items() if not {canonical(one) for one in owners} & there)


def ended(code: str, folder: Path, *extras: str, without: str = "") -> subprocess.CompletedProcess[str]:
    """A new process that runs `code` where nothing but nfa[extras] is installed, and not the module `without`."""
    blocked = [*absent(*extras), *([without] if without else [])]
    lines = f"import sys\nsys.modules.update(dict.fromkeys({blocked}))\n{code}"
    command = [sys.executable, "-c", lines]
    return subprocess.run(command, cwd=folder, env=environment_of_tests(), capture_output=True, text=True, check=False)


def started(words: str, folder: Path, *extras: str, without: str = "") -> subprocess.CompletedProcess[str]:
    """`nfa WORDS` there."""
    code = f"sys.argv = {['nfa', *words.split()]}\nfrom nfa.__main__ import main\nmain()"
    return ended(code, folder, *extras, without=without)
