"""The plugin helps this project where conda is missing, and nobody else."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import mlflow
import pytest
from mlflow.exceptions import ExecutionException
from mlflow.projects.backend import loader

from nfa.registry import mlflow_plugin
from nfa.registry.tracking import store as tracking_store
from tests.support.processes import ROOT
from tests.support.stores import Store


class Local:
    """Stands for MLflow's local backend."""

    seen: ClassVar[dict[str, Any]]

    def run(
        self, project_uri: str, entry_point: str, params: Any, version: Any, config: Any, tracking: Any, experiment: Any
    ) -> str:
        fetch_and_validate_project(project_uri, version, entry_point, params)
        rest = (tracking, experiment)
        Local.seen = {"uri": project_uri, "entry": entry_point, "config": dict(config), "rest": rest}
        return f"ran with {params} {version}"


CLONED = "https://somewhere.invalid/nfa.git"


def fetch_and_validate_project(uri: str, *_: Any) -> str:
    """Stands for MLflow's: the folder of a project."""
    return str(ROOT) if uri == CLONED else uri.removeprefix("file://")


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(globals(), "fetch_and_validate_project", fetch_and_validate_project)  # undone afterwards
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


@pytest.mark.parametrize("project", [str(ROOT), f"file://{ROOT}", CLONED])
def test_without_conda_and_without_a_choice_the_active_environment_is_used(
    project: str, table: ModuleType, conda: Callable[[bool], None], capsys: pytest.CaptureFixture[str]
) -> None:
    conda(False)
    assert typed(table, project, None) == "ran with {'a': 1} None"
    assert Local.seen == {"uri": project, "entry": "train", "config": {"ENV_MANAGER": "local"}, "rest": ("uri", "0")}
    assert capsys.readouterr().err.count("\n") == 1
    assert os.environ["PATH"].split(os.pathsep)[0] == os.path.dirname(sys.executable)
    assert os.environ["NFA_CALLER_DIR"] == os.getcwd()


def test_a_password_for_a_project_that_is_cloned_first_is_refused_once_it_is_here(
    table: ModuleType, conda: Callable[[bool], None]
) -> None:
    conda(True)
    Local.seen = {}
    backend = table.MLFLOW_BACKENDS["local"]()
    with pytest.raises(ExecutionException, match="a password in storage"):
        backend.run(CLONED, "tune", {"storage": "postgresql://u:geheim@h/db"}, None, {}, "uri", "0")
    assert Local.seen == {}


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


@pytest.mark.parametrize(
    "params",
    [
        {"epochs": 1, "storage": "postgresql://u:geheim@h/db"},
        {"anything": "postgresql://u@h/db?sslpassword=geheim"},
        {"storage": "host=h password='geheim'"},
    ],
)
@pytest.mark.usefixtures("store")
def test_a_parameter_with_a_password_is_refused_before_mlflow_makes_a_run(
    params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "MlflowClient", lambda: pytest.fail("used"))
    with pytest.raises(ExecutionException, match=f"a password in {[*params][-1]}, .*\n.*\n.*PGPASSWORD") as told:
        mlflow.projects.run(str(ROOT), "tune", parameters=params)
    assert "geheim" not in str(told.value)


def test_a_parameter_with_a_password_of_another_project_is_its_own_affair(tmp_path: Path) -> None:
    (tmp_path / "MLproject").write_text("name: other\n")
    module = ModuleType("projects")
    module.run = lambda uri, parameters: (uri, parameters)  # type: ignore[attr-defined]
    mlflow_plugin._wrap_run(module)
    params = {"storage": "postgresql://u:geheim@h/db"}
    assert module.run(str(tmp_path), parameters=params) == (str(tmp_path), params)


@pytest.mark.parametrize(
    ("words", "masks"),
    [
        (["/bin/mlflow", "run", str(ROOT)], True),
        (["/x/mlflow/__main__.py", "run", "-e", "train", str(ROOT)], True),
        (["/bin/mlflow", "run", "/another"], False),
        (["/bin/mlflow", "server", str(ROOT)], False),
        (["/x/my_program.py", "run", str(ROOT)], False),
    ],
)
def test_only_the_command_that_runs_this_project_masks_what_it_prints(
    words: list[str], masks: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "geheim")
    mlflow_plugin._mask_own_command()
    print("it is geheim")
    assert capsys.readouterr().out == f"it is {'***' if masks else 'geheim'}\n"


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


def test_where_mlflow_fetches_projects_in_another_way_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(globals(), "fetch_and_validate_project")
    module = ModuleType("loader")
    module.MLFLOW_BACKENDS = {"local": Local}  # type: ignore[attr-defined]
    mlflow_plugin._wrap(module)
    assert module.MLFLOW_BACKENDS["local"] is Local


def test_installed_mlflow_has_the_hook_where_the_plugin_expects_it() -> None:
    assert loader.MLFLOW_BACKENDS["local"].__module__ == "nfa.registry.mlflow_plugin"
    assert loader.MLFLOW_BACKENDS["local"].__mro__[1].__name__ == "LocalBackend"


@pytest.fixture
def projects() -> ModuleType:
    """Stands for mlflow.projects; its `run` gives what was typed, where the store is, and which experiments it has."""

    def run(uri: str, entry_point: str = "main", experiment_name: str | None = None) -> tuple[Any, str, list[str]]:
        found = [experiment.name for experiment in mlflow.MlflowClient().search_experiments()]
        return (uri, entry_point, experiment_name), mlflow.get_tracking_uri(), found

    module = ModuleType("projects")
    module.run = run  # type: ignore[attr-defined]
    mlflow_plugin._wrap_run(module)
    return module


@pytest.mark.parametrize("by_variable", [True, False])
def test_the_experiment_is_there_before_mlflow_looks_for_it(
    by_variable: bool, projects: ModuleType, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_variable:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "new")
    name = None if by_variable else "new"
    typed = (str(ROOT), "train", name)
    assert projects.run(str(ROOT), "train", experiment_name=name) == (typed, store.uri, ["new", "Default"])


@pytest.fixture
def hard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose name MLflow takes for another's, with no store named."""
    folder = tmp_path / "a%20b"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    yield folder
    mlflow.set_tracking_uri(None)


def test_the_store_is_made_ready_where_the_command_was_typed(
    hard: Path, projects: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[str] = []
    monkeypatch.setattr(tracking_store, "_client", reached.append)
    monkeypatch.setattr(mlflow, "MlflowClient", lambda: pytest.fail("used") if not reached else Experimentless())
    _, address, _ = projects.run(str(ROOT))
    assert address == f"sqlite+pysqlite:///{hard.parent}/a%2520b/mlflow.db"
    assert os.environ["MLFLOW_TRACKING_URI"] == address  # what the entry point gets
    assert reached == [address]
    assert os.listdir(hard.parent) == [hard.name]


class Experimentless:
    def search_experiments(self) -> list[Any]:
        return []


def test_a_store_that_cannot_be_used_ends_mlflow_run_with_what_to_do(
    hard: Path, projects: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{hard}/mlflow.db")
    with pytest.raises(mlflow.projects.ExecutionException, match="write % as %25"):
        projects.run(str(ROOT))
    assert os.listdir(hard.parent) == [hard.name]


def test_the_store_of_other_projects_is_left_alone(
    hard: Path, projects: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking_store, "_client", lambda _: pytest.fail("made ready"))
    monkeypatch.setattr(mlflow, "MlflowClient", Experimentless)
    assert projects.run(str(hard))[1].startswith("sqlite:///")


def test_mlflow_without_the_function_is_left_alone() -> None:
    module = ModuleType("projects")
    mlflow_plugin._wrap_run(module)
    assert not hasattr(module, "run")


def test_installed_mlflow_runs_projects_through_the_plugin() -> None:
    assert mlflow.projects.run.__wrapped__.__module__ == "mlflow.projects"
    assert mlflow.run is mlflow.projects.run


def test_plugin_adds_no_tags_to_runs() -> None:
    hook = mlflow_plugin.LocalEnvironmentHook()
    assert not hook.in_context()
    assert hook.tags() == {}
