"""What breaks without an error when a module moves: names in strings, path patterns, and what is stored."""

import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfa.registry.entry_points import entry_points
from nfa.registry.families.protocol import Family, FamilyTraining
from nfa.registry.families.registry import FAMILIES, families
from nfa.registry.places import named
from tests.support.processes import ROOT, environment_of_tests

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = ("nfa", "entrypoints", "tests", "benchmarks", "docs")
SOURCES = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
DOTTED = re.compile(r"""["'`](nfa(?:\.[a-z_0-9]+)+)(?:[:.][A-Z]\w*)*["'`]""")
POINTS = entry_points()


def mentioned() -> set[str]:
    """Modules, or names in them, in quotation marks; tags of runs, which begin alike, are none."""
    found = {match[1] for file in SOURCES for match in DOTTED.finditer(file.read_text(encoding="utf-8"))}
    tops = {path.stem for path in (ROOT / "nfa").iterdir()}
    return {name for name in found if name.split(".")[1] in tops}


def exists(name: str) -> bool:
    """Whether it is a module, or a name in one."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        place, _, last = name.rpartition(".")
        return hasattr(importlib.import_module(place), last)
    return True


def test_every_module_named_in_a_string_is_there() -> None:
    found = mentioned()
    assert len(found) > 20
    assert {name for name in found if not exists(name)} == set()


@pytest.mark.parametrize("name", POINTS)
def test_what_an_entry_point_names_is_there(name: str) -> None:
    point = POINTS[name]
    for place in filter(None, (point.config, point.start, point.look, point.check)):
        assert callable(named(place))


def test_every_family_has_the_name_it_is_registered_by() -> None:
    assert {name: named(place).name for name, place in FAMILIES.items()} == {name: name for name in FAMILIES}


@pytest.mark.parametrize("family", [*families()], ids=[*FAMILIES])
def test_what_a_family_names_is_there(family: Family) -> None:
    assert isinstance(family.training, FamilyTraining)
    assert family.score is None or callable(named(family.score.read))


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_an_entry_point_is_imported_alone(name: str, tmp_path: Path) -> None:
    """In a fresh process nothing that another one has imported helps."""
    code = f"from nfa.registry.places import named; assert callable(named({POINTS[name].start!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment_of_tests(), check=True)


def patterns() -> Iterator[str]:
    """Of files, in pyproject.toml."""
    tools = PROJECT["tool"]
    yield from tools["ruff"]["lint"]["per-file-ignores"]
    yield from (f"{folder}/*" for folder in tools["mypy"]["files"])
    for package, files in tools["setuptools"]["package-data"].items():
        yield from (f"{package.replace('.', '/')}/{file}" for file in files)


@pytest.mark.parametrize("pattern", list(patterns()))
def test_a_pattern_of_files_matches_one(pattern: str) -> None:
    assert any(ROOT.glob(pattern))


def test_packages_whose_shapes_are_checked_are_there_and_have_shapes() -> None:
    options = PROJECT["tool"]["pytest"]["ini_options"]["addopts"]
    packages = re.search(r"--jaxtyping-packages=(\S+?),beartype", options)
    assert packages
    for package in packages[1].split(","):
        place = ROOT.joinpath(*package.split("."))
        files = [*place.rglob("*.py"), *place.parent.glob(f"{place.name}.py")]
        assert any("from jaxtyping import" in file.read_text(encoding="utf-8") for file in files), package


def test_plugins_and_scripts_that_are_installed_are_there() -> None:
    project = PROJECT["project"]
    places = [*project["scripts"].values(), *project["entry-points"]["mlflow.run_context_provider"].values()]
    assert all(callable(named(place)) for place in places)


def test_commands_in_files_that_are_no_python_name_what_is_there() -> None:
    named_files = "Makefile", "MLproject", "README.md", "CONTRIBUTING.md"
    files = [*(ROOT / name for name in named_files), *ROOT.glob("docs/*.md")]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    names = set(re.findall(r"-m ((?:entrypoints|benchmarks|nfa)(?:\.\w+)*)", text))
    assert names
    for name in names - {"benchmarks"}:  # of a loop over their names
        place = ROOT.joinpath(*name.split("."))
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), name
