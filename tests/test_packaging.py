"""What is installed with what, and what is released: pyproject.toml, conda.yaml, constraints.txt, CITATION.cff."""

import tarfile
import tomllib
import zipfile
from fnmatch import fnmatch
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import nfa
from nfa.errors import NfaError
from nfa.extras import EXTRAS
from release import check
from tests.support.installations import canonical, requirements
from tests.support.processes import ROOT

EVERY = ("", "all", "dev", "dashboard", "benchmark", *EXTRAS)
WHEN_ASKED = {"mne"}  # of an extra, but not for all that it is for


def pins(lines: list[str]) -> dict[str, str]:
    asked = [line.partition("==") for line in lines if "==" in line]
    return {canonical(Requirement(name).name): version for name, _, version in asked}  # psycopg[binary] is psycopg


def constraints() -> dict[str, str]:
    return pins((ROOT / "constraints.txt").read_text(encoding="utf-8").split())


def conda_pins() -> dict[str, str]:
    content = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))
    return pins(next(item["pip"] for item in content["dependencies"] if isinstance(item, dict)))


# ---- what is installed


def test_conda_pins_are_those_of_the_constraints() -> None:
    pinned = conda_pins()
    assert pinned
    assert {name: constraints().get(name) for name in pinned} == pinned


def test_conda_environment_holds_what_entry_points_use_and_nothing_else() -> None:
    assert set(conda_pins()) == {*requirements(), *requirements("all")}


@pytest.mark.parametrize("extra", EVERY)
def test_constraints_pin_every_dependency_to_a_version_that_the_project_allows(extra: str) -> None:
    assert requirements(extra)
    for name, line in requirements(extra).items():
        assert line.specifier.contains(constraints()[name]), line


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_is_asked_for_before_work_starts_is_what_the_extra_installs(extra: str) -> None:
    installed = set(requirements(extra)) - (set(requirements("language")) if extra == "datasets" else set())
    assert set(EXTRAS[extra]) == installed - WHEN_ASKED


def test_every_extra_of_a_part_is_in_all() -> None:
    assert {name for extra in EXTRAS for name in requirements(extra)} == set(requirements("all"))


def test_installed_mlflow_is_the_one_that_the_plugin_was_tested_with() -> None:
    import mlflow

    assert mlflow.__version__ == constraints()["mlflow"]


def test_the_plugin_is_known_to_mlflow_by_its_place() -> None:
    (plugin,) = (one for one in entry_points(group="mlflow.run_context_provider") if one.name == "nfa")
    assert plugin.load().__name__ == "LocalEnvironmentHook"


# ---- what is released


def test_the_citation_is_one_of_cff_1_2_and_names_the_version() -> None:
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert said["cff-version"] == "1.2.0"
    assert said["version"] == nfa.__version__
    assert (said["title"], said["license"], said["type"]) == ("nfa", "MIT", "software")
    assert said["message"]
    assert all(author["name"] for author in said["authors"])
    assert said.keys() <= {
        "cff-version", "message", "title", "version", "license", "type", "abstract", "authors", "keywords",
    }  # fmt: skip


def test_a_release_is_refused_while_changelog_and_citation_say_another_version(tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {nfa.__version__}\n\n## 0.1\n")
    (tmp_path / "CITATION.cff").write_text('version: "0.1"\n')
    assert [*check.disagreements(tmp_path)] == [f"CITATION.cff says version 0.1, nfa.__version__ is {nfa.__version__}"]
    assert [*check.disagreements(ROOT)] == []


def test_every_committed_file_is_named_for_the_source_distribution_and_of_the_package_for_the_wheel() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    committed = [name for name in check._git("ls-files").splitlines() if not name.startswith(check.UNPACKAGED)]
    asked = [line.split() for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()]
    names = {"pyproject.toml", "MANIFEST.in", *(name for words in asked if words[0] == "include" for name in words[1:])}
    folders = {words[1] for words in asked if words[0] == "graft"}
    tops = {name.partition("/")[0] for name in committed} - folders
    assert [name for name in tops if not any(fnmatch(name, pattern) for pattern in names)] == []
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    kept = [f"{package.replace('.', '/')}/{name}" for package, names in data.items() for name in names]
    others = [name for name in committed if name.startswith("nfa/") and not name.endswith(".py")]
    assert [name for name in others if not any(fnmatch(name, pattern) for pattern in kept)] == []


def packaged(folder: Path, sources: list[str], held: list[str]) -> tuple[Path, Path]:
    """A source distribution and a wheel that hold empty files of these names."""
    sdist, wheel, empty = folder / "a.tar.gz", folder / "a.whl", folder / "empty"
    empty.touch()
    with tarfile.open(sdist, "w:gz") as archive:
        for name in sources:
            archive.add(empty, f"nfa-1/{name}")
    with zipfile.ZipFile(wheel, "w") as packed:
        for name in [*held, "nfa-1.dist-info/licenses/LICENSE"]:
            packed.writestr(name, "")
    return sdist, wheel


def test_a_committed_file_that_is_not_packaged_is_named(tmp_path: Path) -> None:
    committed = ["nfa/a.py", "nfa/py.typed", "docs/b.md", ".gitignore"]
    check.check_contents(committed, *packaged(tmp_path, committed[:3], committed[:2]))
    with pytest.raises(NfaError, match=r"not packaged: nfa/py\.typed"):
        check.check_contents(committed, *packaged(tmp_path, committed[:3], committed[:1]))
    with pytest.raises(NfaError, match=r"not packaged: docs/b\.md"):
        check.check_contents(committed, *packaged(tmp_path, committed[:2], committed[:2]))


def test_a_tag_is_made_of_a_commit_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "ROOT", tmp_path)
    me = ["-c", "user.name=me", "-c", "user.email=me@here"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "a"], ["tag", "-a", "v1", "-m", "v1"]):
        check._git(*me, *words)
    assert [*check.unready("v2")] == []
    (tmp_path / "a.py").touch()
    check._git("add", "a.py")
    (tmp_path / "b.py").touch()
    uncommitted, tagged = check.unready("v1")
    assert uncommitted == "uncommitted: a.py, b.py: a tag is of a commit"
    assert tagged.startswith("the tag v1 exists")
