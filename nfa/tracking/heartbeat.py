"""Whether a run that says it is running still has a process behind it."""

import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from nfa.tracking.store import StoreError, client

TAG = "nfa.heartbeat"
INTERVAL = 10.0  # seconds between beats
SILENCE = 60.0  # seconds without a beat after which a process elsewhere counts as gone


def beat(run_id: str) -> None:
    """Write the sign of life of this process into a run's tag."""
    client().set_tag(run_id, TAG, sign_of_life())


def sign_of_life() -> str:
    """The time, and what tells this process from every other."""
    pid = os.getpid()
    return json.dumps({"time": time.time(), "host": socket.gethostname(), "pid": pid, "started": _started(pid)})


def is_alive(tags: Mapping[str, str]) -> bool:
    """Whether the process named by a run's heartbeat tag is there: looked up on this host, timed out on others."""
    if TAG not in tags:
        return False
    content = json.loads(tags[TAG])
    if content["host"] == socket.gethostname():
        return _process_exists(content["pid"]) and _started(content["pid"]) == content.get("started")
    return bool(time.time() - content["time"] < SILENCE)


def is_gone(sign: str) -> bool:
    """Whether a sign of life is of a process on this host that is certainly no more."""
    content = json.loads(sign)
    here = content["host"] == socket.gethostname()
    return here and not (_process_exists(content["pid"]) and _started(content["pid"]) == content["started"])


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _started(pid: int) -> str | None:
    """When a process started: its number may by now be another one's. None for a zombie and where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


class Heartbeat:
    """Beats in a thread of its own until stopped, so that long analyses count as alive."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, daemon=True)

    def start(self) -> None:
        beat(self.run_id)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _beat_on(self) -> None:
        while not self._stopped.wait(INTERVAL):
            try:
                beat(self.run_id)
            except StoreError:
                continue  # one missed beat is not worth a training; a broken store fails the next logging call


def sweep(experiment: str) -> list[str]:
    """Mark runs that say "running" and have no process any more as killed; returns their ids."""
    running = client().search_runs([experiment], "tags.`nfa.state` = 'running'", max_results=100)
    stale = [run.info.run_id for run in running if not is_alive(run.data.tags)]
    for run_id in stale:
        client().set_tag(run_id, "nfa.state", "killed")
        client().set_tag(run_id, "nfa.error", "its process ended without a word (killed, crash or power cut)")
        client().set_terminated(run_id, "KILLED")
    return stale
