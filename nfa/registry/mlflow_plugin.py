"""Lets a bare `mlflow run .` of this project work without conda.

MLflow picks its environment manager from conda.yaml and fails if conda is not installed; neither MLproject nor an
environment variable can change that. MLflow loads this module as a plugin, and the hook wraps its local project
backend: without --env-manager and without conda, the project runs in the environment that `mlflow` itself runs in.

MLflow's table of backends is private, and so is the way a backend fetches a project. Only this module touches them,
only for the project named `nfa`, and without effect if MLflow has changed them.

Before `mlflow run` uses the tracking store, it is prepared as by our own programs (tracking/first_use.py and
places.py). This works for a project in a folder. A project that is cloned or unpacked first can be recognised only
afterwards, when MLflow has already opened the store.
"""

import functools
import importlib
import importlib.abc
import importlib.util
import inspect
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mlflow.tracking.context.abstract_context import RunContextProvider

PROJECT = "nfa"
_COMMANDS = (f"{os.sep}mlflow", os.path.join("mlflow", "__main__.py"))
_LOADER = "mlflow.projects.backend.loader"
_PROJECTS = "mlflow.projects"
_FETCH = "fetch_and_validate_project"
_when_fetched: ContextVar[Callable[[str], None]] = ContextVar("what is done with a project's folder")


class LocalEnvironmentHook(RunContextProvider):
    """Adds no tags. MLflow creates one instance when it starts, and that is when the hook is installed."""

    def __init__(self) -> None:
        _mask_own_command()
        # MLflow loads plugins halfway through its own import, mostly before the modules we wrap.
        for name, wrap in ((_LOADER, _wrap), (_PROJECTS, _wrap_run)):
            if name in sys.modules:
                wrap(sys.modules[name])
            else:
                sys.meta_path.insert(0, _WhenImported(name, wrap))

    def in_context(self) -> bool:
        return False

    def tags(self) -> dict[str, str]:
        return {}


class _WhenImported(importlib.abc.MetaPathFinder):
    def __init__(self, name: str, wrap: Callable[[ModuleType], None]) -> None:
        self.name, self.wrap = name, wrap

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_wrap(module: ModuleType) -> None:
            execute(module)
            self.wrap(module)

        spec.loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec


def _wrap(loader: ModuleType) -> None:
    """Replace the "local" backend in `loader.MLFLOW_BACKENDS`, if it is where MLflow 3.17 keeps it."""
    backends = getattr(loader, "MLFLOW_BACKENDS", None)
    if not isinstance(backends, dict) or not hasattr(backends.get("local"), "run"):
        return
    original = backends["local"]
    if not _wrap_fetch(sys.modules[original.__module__]):
        return

    class LocalBackend(original):  # type: ignore[misc, valid-type]
        """MLflow's local backend, which prepares our project once it lies in a folder, fetched or not."""

        def run(self, project_uri: str, entry_point: str, params: Any, version: Any, config: Any, *rest: Any) -> Any:
            _when_fetched.set(lambda folder: _settle(folder, params, config))
            return super().run(project_uri, entry_point, params, version, config, *rest)

    backends["local"] = LocalBackend


def _wrap_fetch(backend: ModuleType) -> bool:
    """Hook into the function by which a backend gets a project's folder; return whether it exists."""
    original = getattr(backend, _FETCH, None)
    if not callable(original):
        return False

    @functools.wraps(original)
    def fetch(*words: Any, **named: Any) -> Any:
        folder = original(*words, **named)
        _when_fetched.get()(folder)
        return folder

    setattr(backend, _FETCH, fetch)
    return True


def _settle(folder: str, params: Mapping[str, Any] | None, config: dict[str, Any]) -> None:
    """Prepare MLflow for our project; the entry point itself is started by MLflow, in the project's folder."""
    if _is_ours(folder):
        if _is_own_command():
            _mask()
        _refuse_passwords(params or {})
        os.environ["NFA_CALLER_DIR"] = os.getcwd()
        _choose_environment(config)


def _wrap_run(projects: ModuleType) -> None:
    """Prepare the store in `projects.run`, because MLflow uses it before it reaches a backend."""
    original = getattr(projects, "run", None)
    if not callable(original):
        return
    signature = inspect.signature(original)

    @functools.wraps(original)
    def run(*words: Any, **named: Any) -> Any:
        given = signature.bind(*words, **named).arguments
        if _is_ours(str(given["uri"])):
            _refuse_passwords(given.get("parameters") or {})
            _make_ready(given.get("experiment_name") or os.environ.get("MLFLOW_EXPERIMENT_NAME"))
        return original(*words, **named)

    projects.run = run  # type: ignore[attr-defined]


def _make_ready(experiment: str | None) -> None:
    """Prepare the store's address, its tables and the experiment, whatever the folder's name."""
    import mlflow
    from mlflow.exceptions import ExecutionException

    from nfa.errors import Refusal
    from nfa.extras import check_extra

    try:
        check_extra("mlflow run of nfa", "registry")
        from nfa.registry.tracking import places, store

        with store.reaching_store():
            if (address := places.store_address()) != mlflow.get_tracking_uri():
                mlflow.set_tracking_uri(address)
            store.client()
            if experiment:
                store.experiment_named(experiment)
    except Refusal as error:
        raise ExecutionException(str(error)) from None


def _is_ours(project_uri: str) -> bool:
    path = os.path.join(project_uri.removeprefix("file://"), "MLproject")
    if not os.path.isfile(path):
        return False
    with open(path, encoding="utf-8", errors="replace") as file:  # the file may be anything
        return any(line.split("#")[0].split() == ["name:", PROJECT] for line in file)


def _mask_own_command() -> None:
    """Mask the store's password in what `mlflow run` prints; programs that call MLflow are left alone."""
    if _is_own_command() and any(map(_is_ours, sys.argv[2:])):
        _mask()


def _is_own_command() -> bool:
    return sys.argv[0].endswith(_COMMANDS) and sys.argv[1:2] == ["run"]


def _mask() -> None:
    from nfa.masking import mask_process

    mask_process()


def _refuse_passwords(params: Mapping[str, Any]) -> None:
    """Refuse parameters with passwords before MLflow stores them in a run."""
    from mlflow.exceptions import ExecutionException

    from nfa.errors import Refusal
    from nfa.masking import INSTEAD, carries_password

    told = [name for name, value in params.items() if carries_password(str(value))]
    if told:
        got = f"a password in {', '.join(told)}, which MLflow would store"
        raise ExecutionException(str(Refusal(got, "parameters without a password", INSTEAD)))


def _choose_environment(config: dict[str, Any]) -> None:
    if config.get("ENV_MANAGER") is None and _conda() is None:
        print("nfa: conda is not installed; using the active Python environment (--env-manager local)", file=sys.stderr)
        config["ENV_MANAGER"] = "local"
    if config.get("ENV_MANAGER") == "local":
        # MLproject calls `python`: this must be the interpreter that runs mlflow, activated or not.
        os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])


def _conda() -> str | None:
    """Return the path of the conda that MLflow would find."""
    if home := os.environ.get("MLFLOW_CONDA_HOME"):
        return shutil.which(os.path.join(home, "bin", "conda"))
    return shutil.which(os.environ.get("CONDA_EXE", "conda"))
