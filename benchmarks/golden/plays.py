"""Playing: groups of steps, each group in a folder with a store of its own, each step a process as a user starts it."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient

from benchmarks.golden.files import tree
from benchmarks.golden.masks import ROOT, Masks
from benchmarks.golden.stores import Kinds, Reader

LIMIT = 300.0  # seconds that no step takes
DATABASES = (".db", ".db-wal", ".db-shm", ".db-journal")


@dataclass(frozen=True)
class Step:
    """A process: its name in the record, its module and its parameters.

    `{NAME}` in a parameter is the id of the run of that name. Where `killed_at` names a file below the artifacts, it
    is killed as soon as that is there anew; `unsaid` is a step whose lines depend on when another was killed.
    """

    name: str
    module: str
    words: Mapping[str, object] = field(default_factory=dict)
    killed_at: str = ""
    unsaid: bool = False


@dataclass(frozen=True)
class Group:
    """Steps one after the other, and what makes the files that they read."""

    name: str
    steps: Sequence[Step]
    prepare: Callable[[Path], None] = lambda _: None
    loose: bool = False  # its processes race: values depend on who is first


class Player:
    """Plays a group in a folder that holds an empty store."""

    def __init__(self, group: Group, folder: Path) -> None:
        self.group, self.folder = group, folder
        self.reader = Reader(folder)
        self.ended: dict[str, tuple[int, str]] = {}
        self.seconds: dict[str, float] = {}

    def play(self) -> dict[str, Kinds]:
        """Everything that came of it, by the names of runs and steps."""
        self.group.prepare(self.folder)
        for step in self.group.steps:
            started = time.monotonic()
            self._take(step)
            self.reader.name(step.name)
            self.seconds[step.name] = time.monotonic() - started
        return self._record()

    def _take(self, step: Step) -> None:
        output = self.folder / "output.log"
        with output.open("wb") as terminal:
            process = subprocess.Popen(
                [sys.executable, "-m", step.module, *self._words(step)],
                cwd=self.folder, env=self._environment(), stdin=subprocess.DEVNULL, stdout=terminal,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            if step.killed_at:
                self._kill_at(process, step.killed_at)
            code = process.wait(LIMIT)
        text = output.read_text(encoding="utf-8", errors="replace")
        output.unlink()
        self.ended[step.name] = code, "" if step.unsaid or step.killed_at or self.group.loose else text

    def _words(self, step: Step) -> list[str]:
        ids = {name: run_id for run_id, name in self.reader.names.items()}

        def told(value: object) -> str:
            return re.sub(r"\{([^}]+)\}", lambda found: ids.get(found[1], "missing"), str(value))

        return [word for name, value in step.words.items() for word in (f"--{name}", told(value))]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "NFA_"))}
        return kept | {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",  # peft writes a set
            "COLUMNS": "120",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
            "NFA_CACHE": str(self.folder / "cache"),
        }

    def _kill_at(self, process: "subprocess.Popen[bytes]", path: str) -> None:
        until, pattern = time.monotonic() + LIMIT, f"mlruns/*/*/{path}"
        known = len([*self.folder.glob(pattern)])
        while process.poll() is None and time.monotonic() < until and len([*self.folder.glob(pattern)]) == known:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)

    def _record(self) -> dict[str, Kinds]:
        names = self.reader.names
        masks = Masks(names, {str(self.folder): "<folder>", str(ROOT): "<root>"})
        found = {names[run.info.run_id]: self.reader.record(run, masks) for run in self.reader.runs()}
        for step, (code, text) in self.ended.items():
            own = found.setdefault(step, {})
            own["ended"] = {"code": str(code), "output": masks.text(text)}
        rest = tree(self.folder, masks, without=self._is_store)
        found[self.group.name] = {"files": rest, "registered": self.reader.registered(masks)}
        return {name: _loosened(kinds) for name, kinds in found.items()} if self.group.loose else found

    def _is_store(self, path: Path) -> bool:
        inside = path.relative_to(self.folder)
        return inside.parts[0] in ("mlruns", "cache", "given") or path.suffix in DATABASES


def _loosened(kinds: Kinds) -> Kinds:
    """Only which keys there are."""
    return {kind: dict.fromkeys(values, "there") for kind, values in kinds.items() if kind != "ended"} | {
        kind: values for kind, values in kinds.items() if kind == "ended"
    }


def empty_store(folder: Path) -> Path:
    """A database with MLflow's tables and its default experiment, to be copied."""
    database = folder / "empty.db"
    MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


def player_of(group: Group, folder: Path, database: Path) -> Player:
    """A player of the group in a folder of its own, in which its artifacts are, too."""
    folder.mkdir()
    copy = shutil.copy(database, folder / "mlflow.db")
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", (f"{folder}/mlruns/0",))
    return Player(group, folder)
