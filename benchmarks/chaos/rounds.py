"""A round: fresh folders, and real processes in them."""

import random
import re
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from benchmarks.chaos import files
from benchmarks.chaos.clock import Clock
from benchmarks.chaos.database import Database, StoredRun
from benchmarks.chaos.processes import LIMIT, Process
from benchmarks.chaos.seen import NOTHING, Clean, Seen

ROOT = Path(__file__).resolve().parent.parent.parent
KILLED, INTERRUPTED, TERMINATED = -9, 130, 143
Words = Mapping[str, object]


@dataclass(frozen=True)
class Bench:
    """What all rounds share: a place, the clock, and a database whose tables are made."""

    folder: Path
    clock: Clock

    @property
    def prepared(self) -> Path:
        """A round that is not about the making of tables starts with a copy."""
        return self.folder / "prepared.db"


class Round:
    """A few commands in folders of their own. `clean` is what they leave undisturbed."""

    def __init__(self, bench: Bench, name: str, clean: Clean = NOTHING, *, typed_in: str = "work") -> None:
        self.bench, self.clock, self.clean = bench, bench.clock, clean
        self.folder = bench.folder / re.sub(r"\W+", "-", name)
        self.terminals = self.folder / "terminals"
        self.tmp, self.cache, self.home = (self.folder / kind for kind in ("tmp", "cache", "home"))
        self.work = self.folder / "typed-in" / typed_in
        self.random = random.Random(name)
        self.seen = Seen()
        self.database: Database | None = None  # None = MLflow's default one
        self.tracking = ""  # MLFLOW_TRACKING_URI; empty = none
        self.processes: list[Process] = []
        self.at_end = ExitStack()  # what is to be ended with the round
        for folder in (self.terminals, self.tmp, self.cache, self.home, self.work):
            folder.mkdir(parents=True)

    def prepare(self) -> None:
        """Begin with a database whose tables are made."""
        shutil.copyfile(self.bench.prepared, self.work / "mlflow.db")

    def runs(self) -> list[StoredRun]:
        """All in the store; none where there is no store yet."""
        there = self.database or (self.work / "mlflow.db").exists()
        return self.store().runs() if there else []

    def store(self) -> Database:
        """The database of the tracking store."""
        return self.database or Database(self.work / "mlflow.db")

    def artifacts(self, run: StoredRun) -> Path:
        """A run's folder, also where a server keeps it."""
        address = urlparse(run.artifact_uri)
        if address.scheme == "mlflow-artifacts":
            return self.work / "served" / address.path.lstrip("/")
        return Path(unquote(address.path) if address.scheme == "file" else run.artifact_uri)

    # ---- processes

    def launch(self, command: Sequence[str], **environment: str) -> Process:
        """Start any command."""
        terminal = self.terminals / str(len(self.processes))
        process = Process(command, self.work, self._environment() | environment, terminal, self.clock)
        self.processes.append(process)
        return process

    def start(self, entrypoint: str, words: Words, *, by: Sequence[str] = (), **environment: str) -> Process:
        """Start `python -m nfa NAME --key value …`, itself or by another program."""
        typed = [word for name, value in words.items() for word in (f"--{name}", str(value))]
        return self.launch([*by, sys.executable, "-m", "nfa", entrypoint, *typed], **environment)

    def done(self, entrypoint: str, words: Words) -> Process:
        """Start an entry point that has to finish, and wait for it."""
        process = self.start(entrypoint, words)
        self.ends(process, {0})
        return process

    def go_on(self, training: Words) -> Process:
        """Resume what can be resumed, or train from the beginning."""
        begun = [run for run in self.runs() if not run.finished and (self.artifacts(run) / "config.json").exists()]
        return self.start("train", {"resume": begun[-1].run_id} if begun else training)

    def _environment(self) -> dict[str, str]:
        """Nothing of this process's own, and a password in every place where one can be."""
        ours = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.home),
            "MPLCONFIGDIR": str(self.bench.folder / "matplotlib"),  # its list of fonts is made once
            "TMPDIR": str(self.tmp),
            "NFA_CACHE": str(self.cache),
            "OMP_NUM_THREADS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_TRACKING_USERNAME": files.USER,
            "MLFLOW_TRACKING_PASSWORD": files.PASSWORD,
            "PGPASSWORD": files.PASSWORD,
        }
        return ours | ({"MLFLOW_TRACKING_URI": self.tracking} if self.tracking else {})

    # ---- moments and ends

    def at_a_random_moment(self, process: Process) -> None:
        """Wait until the process has said some of its lines, and a little longer; or until it has ended."""
        wanted = self.random.randrange(self.random.randint(1, self.clean.lines))  # early ones leave some to kill again
        self.clock.wait(lambda: process.ended or process.output.count("\n") >= wanted, LIMIT)
        longer = self.random.uniform(0, 0.2) if wanted else self.random.uniform(0, 4)
        self.clock.wait(lambda: process.ended, longer)

    def at_epoch(self, process: Process, epoch: int) -> None:
        """Wait until the process says that it has done with an epoch."""
        if not process.says(f"epoch {epoch} "):
            self.fault(f"{process.name} never said epoch {epoch}: {process.last_words}")

    def ends(self, process: Process, expected: Collection[int], seconds: float = LIMIT) -> int | None:
        """Wait for a process and note what it ends with; it is a fault if that is not one of `expected`."""
        code = process.end(seconds)
        self.seen.codes["hung" if code is None else str(code)] += 1
        if code is None:
            self.fault(f"{process.name} had to be killed, so long did it take: {process.last_words}")
        elif code not in expected:
            allowed = " or ".join(map(str, sorted(expected)))
            self.fault(f"{process.name} ended with {code}, not {allowed}: {process.last_words}")
        elif "Traceback" in process.output:
            self.fault(f"{process.name} ended with {code} and a traceback: {process.last_words}")
        return code

    def ends_soon(self, process: Process, code: int, *, within: float, slack: float, at_most: float = 20) -> None:
        """The process has just got a signal: it has to end so soon."""
        taken = process.seconds_to_end(at_most)
        self.seen.seconds.append(taken)
        self.ends(process, {code}, at_most - taken)
        if within + slack < taken < at_most:
            self.fault(f"{process.name} took {taken:.1f} s to end after a signal, not {within:.0f} s")

    def fault(self, text: str) -> None:
        """Note what should not be."""
        self.seen.faults.append(text)

    def close(self) -> None:
        """End what still runs."""
        for process in self.processes:
            process.kill()
        self.at_end.close()
