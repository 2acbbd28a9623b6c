"""What the tests of tracking, jobs and entry points share: stores, quick processes, and ways to end them.

A process of its own costs seconds of imports. `launch` forks it from a server that has imported everything and done
nothing yet, so that signals, exit codes and kills are those of a real `python -m entrypoints.NAME`.
"""

import importlib
import itertools
import json
import multiprocessing
import multiprocessing.util
import os
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NFA = str(ROOT / "nfa") + os.sep
HEAVY = ("torch", "mlflow", "numpy")
OPTIMIZERS = ["sgd", "adam", "muon"]
TINY = {"width": 8, "depth": 2, "epochs": 4, "schedule": "0-2,4", "batch_size": 64}

# One thread: tiny products gain nothing from more, and wait for each other on a busy machine.
os.environ.update(OMP_NUM_THREADS="1", MLFLOW_DISABLE_TELEMETRY="true")
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "nfa.jobs.train",
        "matplotlib.backends.backend_pdf",
        "mlflow.store.tracking.sqlalchemy_store",
        "sklearn.datasets",
        "torch._dynamo",
    ]
)


# ---- stores


@dataclass(frozen=True)
class Store:
    """A folder with an SQLite tracking store and its artifacts, as MLflow's defaults have it."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.database}"

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Answer of the database itself."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query, values).fetchall()

    def change(self, query: str, *values: Any) -> None:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(query, values)

    def copy(self, folder: Path) -> "Store":
        """The same store at another place, artifact addresses included."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        moved = Store(folder)
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
        ):
            moved.change(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", str(self.folder), str(folder))
        return moved

    def runs(self) -> list[str]:
        """Ids of all runs, oldest first."""
        return [run_id for (run_id,) in self.rows("SELECT run_uuid FROM runs ORDER BY start_time, rowid")]

    def named(self) -> dict[str, str]:
        """Run ids by run name."""
        return {name: run_id for run_id, name in self.rows("SELECT run_uuid, name FROM runs")}

    def status(self, run_id: str) -> str:
        return str(self.rows("SELECT status FROM runs WHERE run_uuid = ?", run_id)[0][0])

    def tags(self, run_id: str) -> dict[str, str]:
        return dict(self.rows("SELECT key, value FROM tags WHERE run_uuid = ?", run_id))

    def params(self, run_id: str) -> dict[str, str]:
        return dict(self.rows("SELECT key, value FROM params WHERE run_uuid = ?", run_id))

    def metrics(self, run_id: str) -> list[tuple[str, int, float]]:
        """Every row (key, step, value), duplicates included."""
        query = "SELECT key, step, value FROM metrics WHERE run_uuid = ? ORDER BY key, step, value"
        return self.rows(query, run_id)  # type: ignore[return-value]

    def artifact(self, run_id: str, path: str = "") -> Path:
        address = self.rows("SELECT artifact_uri FROM runs WHERE run_uuid = ?", run_id)[0][0]
        return Path(address.removeprefix("file://"), path)

    def json(self, run_id: str, path: str) -> Any:
        """A JSON artifact, read strictly: NaN and infinity are errors."""
        text = self.artifact(run_id, path).read_text(encoding="utf-8")
        return json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))

    def checkpoints(self, run_id: str) -> dict[str, dict[str, Any]]:
        from safetensors.torch import load_file

        files = sorted(self.artifact(run_id, "checkpoints").glob("*.safetensors"))
        return {file.name: load_file(file) for file in files}

    def checkpoint_metadata(self, run_id: str, epoch: int) -> dict[str, str]:
        from safetensors import safe_open

        with safe_open(self.artifact(run_id, f"checkpoints/epoch_{epoch:04d}.safetensors"), "pt") as file:
            return file.metadata()


def new_store(folder: Path) -> Store:
    """An empty store with MLflow's default experiment."""
    code = "from mlflow import MlflowClient; MlflowClient().search_experiments()"
    env = {**environment_of_tests(), "MLFLOW_TRACKING_URI": Store(folder).uri}
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, check=True, capture_output=True)
    return Store(folder)


@contextmanager
def used(store: Store, monkeypatch: Any) -> Iterator[Store]:
    """This process uses `store`, from its folder, and is no part of an `mlflow run`."""
    import mlflow

    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "NFA_CALLER_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(store.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    mlflow.set_tracking_uri(store.uri)
    yield store
    mlflow.set_tracking_uri(None)


def wrapper_in(store: Store) -> str:
    """A run as `mlflow run` makes it before it starts an entry point."""
    import pytest
    from mlflow import MlflowClient

    with pytest.MonkeyPatch.context() as monkeypatch, used(store, monkeypatch):
        return str(MlflowClient().create_run("0", tags={"mlflow.project.entryPoint": "train"}).info.run_id)


@dataclass(frozen=True)
class Finished:
    """A finished run and its store."""

    store: Store
    run_id: str


def finished_run(store: Store) -> Finished:
    ended = run(store, tiny(), pictures=True)
    assert ended.code == 0, ended.output
    return Finished(store, store.runs()[0])


@dataclass(frozen=True)
class Family:
    """The parent that `optimizer=all` makes, its children by optimizer, and their store."""

    store: Store
    parent: str
    children: dict[str, str]


def family_in(store: Store) -> Family:
    """The only family of a store, its children in the order in which they started."""
    parents = {run_id: store.tags(run_id).get("mlflow.parentRunId") for run_id in store.runs()}
    (parent,) = (run_id for run_id, above in parents.items() if above is None)
    children = [run_id for run_id, above in parents.items() if above == parent]
    return Family(store, parent, {store.tags(run_id)["nfa.variant"]: run_id for run_id in children})


def trained_family(store: Store, *, pictures: bool = False, **parameters: Any) -> Family:
    """Of a tiny training with every optimizer."""
    ended = run(store, tiny(optimizer="all", **parameters), pictures=pictures)
    assert ended.code == 0, ended.output
    return family_in(store)


def same_weights(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Bitwise equality of all checkpoints of two runs."""
    return one.keys() == other.keys() and all(
        one[name].keys() == other[name].keys()
        and all(tensor.numpy().tobytes() == other[name][key].numpy().tobytes() for key, tensor in one[name].items())
        for name in one
    )


# ---- words on the command line


def words(**parameters: Any) -> list[str]:
    """`--name value` words."""
    return [word for name, value in parameters.items() for word in (f"--{name}", str(value))]


def tiny(**parameters: Any) -> list[str]:
    """Words for the tiny training, changed where given."""
    return words(**{**TINY, **parameters})


# ---- processes


@dataclass
class Ended:
    """How a process ended and what it said."""

    code: int | None
    output: str


class Child:
    """A running `python -m entrypoints.NAME`."""

    def __init__(self, process: Any, log: Path) -> None:
        self.process, self.log = process, log

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Until the output holds `text`."""
        until = time.monotonic() + seconds
        while text not in self.output:
            assert self.process.is_alive(), f"ended before it said {text!r}:\n{self.output}"
            assert time.monotonic() < until, f"never said {text!r}:\n{self.output}"
            time.sleep(0.01)

    def send(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def end(self, seconds: float = 120) -> Ended:
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"never ended:\n{self.output}"
        return Ended(self.process.exitcode, self.output)


def environment_of_tests() -> dict[str, str]:
    """This process's environment without what MLflow put there."""
    ours = {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "NFA_"))} | ours


def launch(
    store: Store,
    argv: Sequence[str],
    *,
    entrypoint: str = "train",
    before: Callable[[], None] | None = None,
    pictures: bool = False,
    **environment: str,
) -> Child:
    """Start `python -m entrypoints.NAME` in the store's folder; `before` (picklable) runs in it first.

    Drawing takes longer than a tiny training: only with `pictures`.
    """
    log = store.folder / f"log-{time.monotonic_ns()}.txt"
    env = {**environment_of_tests(), "MLFLOW_TRACKING_URI": store.uri, **environment}
    acts = [*([] if pictures else [draw_nothing]), *([before] if before else [])]
    command = [entrypoint, *argv]
    process = _server.Process(target=_child, args=(command, str(store.folder), env, str(log), acts))
    process.start()
    return Child(process, log)


def run(store: Store, argv: Sequence[str], **more: Any) -> Ended:
    """`launch` and wait."""
    return launch(store, argv, **more).end()


def draw_nothing() -> None:
    """Leave out a run's figures."""
    from nfa import tracking

    tracking.save_picture = lambda *_, **__: None


def _child(command: list[str], folder: str, env: dict[str, str], log: str, acts: Sequence[Callable[[], None]]) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = list(command)
    for act in acts:
        act()
    runpy.run_module(f"entrypoints.{command[0]}", run_name="__main__", alter_sys=True)


def process(
    argv: Sequence[str], folder: Path, *flags: str, entrypoint: str = "train", **environment: str
) -> subprocess.CompletedProcess[str]:
    """A real `python -m entrypoints.NAME`, from nothing."""
    command = [sys.executable, *flags, "-m", f"entrypoints.{entrypoint}", *argv]
    env = {**environment_of_tests(), **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


# ---- ends at chosen moments


@dataclass(frozen=True)
class AtCall:
    """Runs `act` at the `number`-th call of a function of nfa in this process; `act` and this are picklable.

    Counting calls instead of seconds reaches every part of a run, however fast the machine is.
    """

    number: int
    act: Callable[[], None]

    def __call__(self) -> None:
        left = self.number

        def count(frame: Any, event: str, _argument: Any) -> None:
            nonlocal left
            if event in ("call", "c_call") and frame.f_code.co_filename.startswith(NFA):
                left -= 1
                if left == 0:
                    sys.setprofile(None)
                    self.act()

        sys.setprofile(count)


@dataclass(frozen=True)
class During:
    """Runs `act` at the `number`-th call of `name` ("function" or "Class.method") of a module, and then the call."""

    module: str
    name: str
    act: Callable[[], None]
    number: int = 1

    def __call__(self) -> None:
        owner: Any = importlib.import_module(self.module)
        *path, name = self.name.split(".")
        for part in path:
            owner = getattr(owner, part)
        original, calls = getattr(owner, name), itertools.count(1)

        def wrapped(*args: Any, **named: Any) -> Any:
            if next(calls) == self.number:
                self.act()
            return original(*args, **named)

        setattr(owner, name, wrapped)


@dataclass(frozen=True)
class Send:
    """Sends this process a signal, or several one after the other."""

    signums: tuple[int, ...]

    def __call__(self) -> None:
        for signum in self.signums:
            os.kill(os.getpid(), signum)


@dataclass(frozen=True)
class Raise:
    """A fault of the program."""

    message: str

    def __call__(self) -> None:
        raise RuntimeError(self.message)


@dataclass(frozen=True)
class Count:
    """Counts the calls that `AtCall` would, and writes their number to a file at the end."""

    path: str

    def __call__(self) -> None:
        total = 0

        def count(frame: Any, event: str, _argument: Any) -> None:
            nonlocal total
            total += event in ("call", "c_call") and frame.f_code.co_filename.startswith(NFA)

        multiprocessing.util.Finalize(None, lambda: Path(self.path).write_text(str(total)), exitpriority=1)
        sys.setprofile(count)


def counted_calls(store: Store, argv: Sequence[str]) -> int:
    """How many calls `AtCall` can choose from in a run with these words."""
    file = store.folder / "calls"
    ended = run(store, argv, before=Count(str(file)))
    assert ended.code == 0, ended.output
    return int(file.read_text())


TERM, INT, KILL = Send((signal.SIGTERM,)), Send((signal.SIGINT,)), Send((signal.SIGKILL,))


def imported(importtime: str) -> Iterator[str]:
    """Module names in the output of `python -X importtime`."""
    for line in importtime.splitlines():
        if line.startswith("import time:"):
            yield line.rsplit("|", 1)[1].strip()
