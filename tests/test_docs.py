"""What is derived from the code says what the code does; what is pinned agrees."""

import dataclasses
import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from nfa.registry import cli
from nfa.registry.entry_points import entry_points
from nfa.registry.families.mlp.config import TrainConfig
from tests.support.processes import ROOT

CONFIGS = {name: point.parameters for name, point in entry_points().items()}


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def project() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    return content


def pins(lines: list[str]) -> dict[str, str]:
    return {canonical(name): version for name, version in (line.split("==") for line in lines if "==" in line)}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.partition("[")[0]).lower()  # psycopg[binary] is psycopg


def constraints() -> dict[str, str]:
    return pins((ROOT / "constraints.txt").read_text(encoding="utf-8").split())


def conda_pins() -> dict[str, str]:
    content = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))
    return pins(next(item["pip"] for item in content["dependencies"] if isinstance(item, dict)))


def requirements(group: str = "") -> dict[str, str]:
    """Requirement by canonical name, of the project or of one of its extras."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = content["optional-dependencies"][group] if group else content["dependencies"]
    named = {canonical(re.match(r"[\w.-]+", line)[0]): line for line in lines}  # type: ignore[index]
    return {name: line for name, line in named.items() if name != "nfa"}  # an extra of its own


@pytest.mark.parametrize("page", generator().PAGES)
def test_generated_page_is_up_to_date(page: str) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == generator().PAGES[page](), "run `make docs`"


@pytest.mark.parametrize(("name", "config"), CONFIGS.items())
def test_mlproject_declares_exactly_the_parameters_with_their_defaults(name: str, config: type) -> None:
    declared = project()["entry_points"][name]["parameters"]
    assert list(declared) == [item.name for item in dataclasses.fields(config)]
    for item in dataclasses.fields(config):
        assert declared[item.name]["default"] == item.default
        assert declared[item.name]["type"] == ("float" if type(item.default) in (int, float) else "string")


@pytest.mark.parametrize(("name", "config"), CONFIGS.items())
def test_mlproject_s_command_passes_every_parameter(name: str, config: type) -> None:
    command = project()["entry_points"][name]["command"]
    assert command.startswith(f"python -m entrypoints.{name} ")
    for item in dataclasses.fields(config):
        assert f"--{item.name} {{{item.name}}}" in command


def test_every_entry_point_has_its_file_and_its_config() -> None:
    files = {file.stem for file in (ROOT / "entrypoints").glob("*.py")} - {"__init__"}
    assert files == set(CONFIGS)
    assert set(project()["entry_points"]) - {"main"} == files


@pytest.mark.parametrize(("name", "config"), CONFIGS.items())
def test_help_and_the_parameter_page_say_the_same_of_every_parameter(name: str, config: type) -> None:
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    help_page = cli.help_text(config, name)
    assert f"\n## {name}\n" in page
    for item in dataclasses.fields(config):
        default = f"`{item.default}`" if item.default != "" else "empty"
        assert f"| `{item.name}` | {default} | {item.metadata['help']}" in page
        shown = repr("") if item.default == "" else item.default
        assert f"  --{item.name} (default {shown})\n      {item.metadata['help']}" in help_page


def test_conda_pins_are_those_of_the_constraints() -> None:
    pinned = conda_pins()
    assert pinned
    assert {name: constraints().get(name) for name in pinned} == pinned


def test_conda_environment_holds_every_dependency_of_the_project_and_nothing_else() -> None:
    assert set(conda_pins()) == set(requirements())


@pytest.mark.parametrize("group", ["", "dev", "eeg", "datasets", "dashboard"])
def test_constraints_pin_every_dependency_to_a_version_that_the_project_allows(group: str) -> None:
    from packaging.requirements import Requirement

    for name, line in requirements(group).items():
        assert Requirement(line).specifier.contains(constraints()[name]), line


def test_installed_mlflow_is_the_one_that_the_plugin_was_tested_with() -> None:
    import mlflow

    assert mlflow.__version__ == constraints()["mlflow"]


def committed() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_file_names_a_package_registry_or_a_wheel_folder() -> None:
    words = ["index" + "-url", "extra-" + "index", "pypi" + ".org/simple", "find" + "-links", "/opt/" + "wheels"]
    text = {file: file.read_bytes() for file in committed() if file.suffix not in {".png", ".pdf"}}
    assert {file: word for file, content in text.items() for word in words if word.encode() in content.lower()} == {}


def test_only_the_placeholder_of_the_artifact_root_is_committed() -> None:
    inside = [file for file in committed() if file.is_relative_to(ROOT / "mlruns")]
    assert [file.name for file in inside] in ([], [".gitkeep"])
    assert not [file for file in committed() if file.suffix in {".db", ".pt", ".safetensors", ".pth"}]


def test_every_entry_point_has_a_line_among_the_commands_and_the_readme_has_the_first() -> None:
    commands = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for name in CONFIGS:
        assert f"\n| `{name}` | " in commands
    assert "\nmlflow run . -e train -P optimizer=sgd\n" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_default_config_is_a_valid_one() -> None:
    assert TrainConfig().resolved().lr == 0.1
