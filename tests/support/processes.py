"""Quick processes of entry points, and ways to end them.

A process of its own costs seconds of imports. `launch` forks it from a server that has imported everything and done
nothing yet, so that signals, exit codes and kills are those of a real `python -m entrypoints.NAME`.
"""

import multiprocessing
import multiprocessing.util
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from tests.support.stores import Store

ROOT = Path(__file__).resolve().parents[2]
NFA = str(ROOT / "nfa") + os.sep
HEAVY = ("torch", "mlflow", "numpy")

# One thread: tiny products gain nothing from more, and wait for each other on a busy machine.
os.environ.update(OMP_NUM_THREADS="1", MLFLOW_DISABLE_TELEMETRY="true")
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [
        "nfa.registry.training.start",
        "nfa.registry.families.mlp.training",
        "nfa.registry.families.eeg.training",
        "nfa.registry.families.language.training",
        "nfa.registry.cli",
        "peft",
        "transformers.models.llama.modeling_llama",
        "matplotlib.backends.backend_pdf",
        "mlflow.store.tracking.sqlalchemy_store",
        "sklearn.datasets",
        "torch._dynamo",
        "tests.support.forkserver_preload",
    ]
)


@cache
def serve() -> None:
    """Start the server that forks; it finds what it preloads in this project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        forkserver.ensure_running()


def words(**parameters: Any) -> list[str]:
    """`--name value` words."""
    return [word for name, value in parameters.items() for word in (f"--{name}", str(value))]


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
    serve()
    process = FORKSERVER.Process(target=_child, args=(command, str(store.folder), env, str(log), acts))
    process.start()
    return Child(process, log)


def run(store: Store, argv: Sequence[str], **more: Any) -> Ended:
    """`launch` and wait."""
    return launch(store, argv, **more).end()


def call(store: Store, act: Callable[[], object], *, before: Callable[[], None] | None = None) -> Ended:
    """Call `act` in a process of its own in the store's folder; both are picklable, and `before` runs first."""
    log = store.folder / f"log-{time.monotonic_ns()}.txt"
    env = {**environment_of_tests(), "MLFLOW_TRACKING_URI": store.uri}
    serve()
    process = FORKSERVER.Process(target=_called, args=(act, before, str(store.folder), env, str(log)))
    process.start()
    return Child(process, log).end()


def _called(
    act: Callable[[], object], before: Callable[[], None] | None, folder: str, env: dict[str, str], log: str
) -> None:
    settle(folder, env, log)
    draw_nothing()
    if before:
        before()
    act()


def draw_nothing() -> None:
    """Leave out a run's figures."""
    from nfa.registry import tracking
    from nfa.sinks import MlflowRun

    for place, name in ((tracking, "save_picture"), (MlflowRun, "figure")):
        setattr(place, name, lambda *_, **__: None)


def _child(command: list[str], folder: str, env: dict[str, str], log: str, acts: Sequence[Callable[[], None]]) -> None:
    settle(folder, env, log)
    sys.argv = list(command)
    for act in acts:
        act()
    runpy.run_module(f"entrypoints.{command[0]}", run_name="__main__", alter_sys=True)


def settle(folder: str, env: dict[str, str], log: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if a shell has started the tests with "&"
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # where temporary files go is found out again
    os.chdir(folder)


def process(
    argv: Sequence[str], folder: Path, *flags: str, entrypoint: str = "train", **environment: str
) -> subprocess.CompletedProcess[str]:
    """A real `python -m entrypoints.NAME`, from nothing."""
    command = [sys.executable, *flags, "-m", f"entrypoints.{entrypoint}", *argv]
    env = {**environment_of_tests(), **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def imported(importtime: str) -> Iterator[str]:
    """Module names in the output of `python -X importtime`."""
    for line in importtime.splitlines():
        if line.startswith("import time:"):
            yield line.rsplit("|", 1)[1].strip()
