"""Servers of a round, on 127.0.0.1: MLflow's, and PostgreSQL with a password."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

from benchmarks.chaos import files
from benchmarks.chaos.database import Database
from benchmarks.chaos.processes import LIMIT
from benchmarks.chaos.rounds import Round


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class TrackingServer:
    """`mlflow server` on the round's default database, where its commands log from now on."""

    def __init__(self, here: Round) -> None:
        self.here = here
        self._port = _free_port()
        self._scratch = here.folder / "server"  # its own TMPDIR: what it leaves is not the product's
        self._scratch.mkdir()
        here.prepare()
        here.tracking = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start it, also again, and wait until it answers."""
        place = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        work = self.here.work
        store = ["--backend-store-uri", f"sqlite:///{work}/mlflow.db", "--artifacts-destination", f"{work}/served"]
        own = {"TMPDIR": str(self._scratch), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_TRACKING_URI": ""}
        self._process = self.here.launch([sys.executable, "-m", "mlflow", "server", *place, *store], **own)
        self.here.clock.wait(lambda: self._process.ended or self._answers(), LIMIT)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.here.tracking}/health", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def hang(self) -> None:
        """It takes connections and answers none."""
        self._process.send_session(signal.SIGSTOP)

    def go_on(self) -> None:
        """It answers again."""
        self._process.send_session(signal.SIGCONT)

    def kill(self) -> None:
        """It is no more."""
        self._process.kill()


class PostgreSQL:
    """An empty database with a password, where the round's commands log from now on."""

    def __init__(self, here: Round) -> None:
        self.here = here
        self._user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
        self._folder = Path(here.at_end.enter_context(tempfile.TemporaryDirectory()))
        if self._user:
            os.chown(self._folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._port = _free_port()
        self._make()
        here.tracking = self.address()
        here.database = Database(self.address().replace("postgresql", "postgresql+psycopg", 1))

    def address(self, password: str = files.PASSWORD) -> str:
        """With the password in it."""
        return f"postgresql://{files.USER}:{quote(password, safe='')}@127.0.0.1:{self._port}/postgres"

    def _make(self) -> None:
        secret = self._folder / "password"
        secret.write_text(files.PASSWORD)
        secret.chmod(0o644)
        self._call("initdb", "-A", "scram-sha-256", "-U", files.USER, f"--pwfile={secret}")
        options = f"-p {self._port} -h 127.0.0.1 -k {self._folder} -c fsync=off"
        self._call("pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", options, "start")
        self.here.at_end.callback(self.stop)

    def stop(self) -> None:
        """It is no more; also where it is none already."""
        if (self._folder / "data" / "postmaster.pid").exists():
            self._call("pg_ctl", "-m", "immediate", "stop")

    def _call(self, name: str, *words: str) -> None:
        command = [program(name), "-D", str(self._folder / "data"), *words]
        subprocess.run(command, user=self._user, cwd="/", check=True, capture_output=True, timeout=LIMIT)


def program(name: str) -> str:
    """Where a program of PostgreSQL is; empty where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else "")
