"""What is derived from the code says what the code does; what is pinned agrees."""

import dataclasses
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from generate import PAGES
from markdown_text import cell
from PIL import Image

from nfa.registry import cli
from nfa.registry.entry_points import entry_points
from nfa.registry.families.custom.maker import find
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.ready import READY
from tests.support.processes import ROOT

CONFIGS = {name: point.parameters for name, point in entry_points().items()}


def project() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("page", PAGES)
def test_generated_page_is_up_to_date(page: str) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == PAGES[page](), "run `make docs`"


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
        assert f"| `{item.name}` | {default} | {cell(item.metadata['help'])}" in page
        shown = repr("") if item.default == "" else item.default
        assert f"  --{item.name} (default {shown})\n      {item.metadata['help']}" in help_page


@pytest.mark.parametrize("name", READY)
def test_the_parameter_page_says_what_every_argument_of_a_ready_workload_means(name: str) -> None:
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    for argument in find(name).arguments:
        assert re.search(rf"^\| `{name}` \| `{argument}` \| \S+ \| [^|]{{4,}} \|$", page, re.MULTILINE)


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


def test_pictures_have_all_their_colours() -> None:
    """With a palette, classes and curves may look alike that are not."""
    modes = {}
    for file in (file for file in committed() if file.suffix == ".png"):
        with Image.open(file) as picture:
            modes[file.name] = picture.mode
    assert modes
    assert {name: mode for name, mode in modes.items() if mode not in ("RGB", "RGBA")} == {}
