"""The plugin helps this project where conda is missing, and nobody else."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from mlflow.projects.backend import loader
from support import ROOT

from nfa import mlflow_plugin


class Local:
    """Stands for MLflow's local backend."""

    seen: ClassVar[dict[str, Any]]

    def run(
        self, project_uri: str, entry_point: str, params: Any, version: Any, config: Any, tracking: Any, experiment: Any
    ) -> str:
        rest = (tracking, experiment)
        Local.seen = {"uri": project_uri, "entry": entry_point, "config": dict(config), "rest": rest}
        return f"ran with {params} {version}"


@pytest.fixture
def table() -> ModuleType:
    module = ModuleType("loader")
    module.MLFLOW_BACKENDS = {"local": Local}  # type: ignore[attr-defined]
    mlflow_plugin._wrap(module)
    return module


@pytest.fixture
def conda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Puts a conda on PATH, or takes every one away."""

    def there(present: bool) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        if present:
            (folder / "conda").write_text("#!/bin/sh\n")
            (folder / "conda").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.delenv("CONDA_EXE", raising=False)
        monkeypatch.delenv("MLFLOW_CONDA_HOME", raising=False)
        monkeypatch.setenv("NFA_CALLER_DIR", "")

    return there


def typed(table: ModuleType, project: Path | str, manager: str | None) -> str:
    config = {"ENV_MANAGER": manager}
    backend = table.MLFLOW_BACKENDS["local"]()
    return str(backend.run(str(project), "train", {"a": 1}, None, config, "uri", "0"))


def test_without_conda_and_without_a_choice_the_active_environment_is_used(
    table: ModuleType, conda: Callable[[bool], None], capsys: pytest.CaptureFixture[str]
) -> None:
    conda(False)
    assert typed(table, ROOT, None) == "ran with {'a': 1} None"
    assert Local.seen == {"uri": str(ROOT), "entry": "train", "config": {"ENV_MANAGER": "local"}, "rest": ("uri", "0")}
    assert capsys.readouterr().err.count("\n") == 1
    assert os.environ["PATH"].split(os.pathsep)[0] == os.path.dirname(sys.executable)


def test_where_conda_is_installed_mlflow_decides(
    table: ModuleType, conda: Callable[[bool], None], capsys: pytest.CaptureFixture[str]
) -> None:
    conda(True)
    path = os.environ["PATH"]
    typed(table, ROOT, None)
    assert Local.seen["config"] == {"ENV_MANAGER": None}
    assert capsys.readouterr().err == ""
    assert os.environ["PATH"] == path


@pytest.mark.parametrize("manager", ["uv", "virtualenv", "conda"])
def test_a_choice_that_was_typed_is_left_alone(
    manager: str, table: ModuleType, conda: Callable[[bool], None], capsys: pytest.CaptureFixture[str]
) -> None:
    conda(False)
    path = os.environ["PATH"]
    typed(table, ROOT, manager)
    assert Local.seen["config"] == {"ENV_MANAGER": manager}
    assert capsys.readouterr().err == ""
    assert os.environ["PATH"] == path


@pytest.mark.parametrize(
    "content", ["name: other\n", "name: nfa2\n", "entry_points: {}\n", "# name: nfa\n", "name: \xfc\n", None]
)
def test_other_projects_are_left_alone(
    content: str | None,
    table: ModuleType,
    conda: Callable[[bool], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    conda(False)
    if content:
        (tmp_path / "MLproject").write_text(content, encoding="latin-1")
    typed(table, tmp_path, None)
    assert Local.seen["config"] == {"ENV_MANAGER": None}
    assert os.environ["NFA_CALLER_DIR"] == ""
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("spelling", ["{}", "file://{}"])
def test_this_project_is_known_by_its_name(spelling: str) -> None:
    assert mlflow_plugin._is_ours(spelling.format(ROOT))


@pytest.mark.parametrize("backends", [None, [], {}, {"local": None}, {"other": Local}])
def test_where_mlflow_has_changed_nothing_happens(backends: Any, capsys: pytest.CaptureFixture[str]) -> None:
    module = ModuleType("loader")
    if backends is not None:
        module.MLFLOW_BACKENDS = backends  # type: ignore[attr-defined]
    mlflow_plugin._wrap(module)
    assert getattr(module, "MLFLOW_BACKENDS", None) == backends
    assert capsys.readouterr() == ("", "")


def test_installed_mlflow_has_the_hook_where_the_plugin_expects_it() -> None:
    assert loader.MLFLOW_BACKENDS["local"].__module__ == "nfa.mlflow_plugin"
    assert loader.MLFLOW_BACKENDS["local"].__mro__[1].__name__ == "LocalBackend"


def test_plugin_adds_no_tags_to_runs() -> None:
    hook = mlflow_plugin.LocalEnvironmentHook()
    assert not hook.in_context()
    assert hook.tags() == {}
