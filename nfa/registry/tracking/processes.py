"""Identify the process that works on a run, and find out whether it still exists."""

import enum
import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil


class Life(enum.Enum):
    """What is known about another process: it exists, it has ended, or it is not visible from here."""

    ALIVE = "alive"
    GONE = "gone"
    UNSEEN = "unseen"


@dataclass(frozen=True)
class Process:
    """A process, identified uniquely across hosts.

    A process id is meaningful only on the same host, since the same boot, and in the same PID namespace: a container
    has process ids of its own and may have the same name as its host.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> "Process":
        """Return this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot(), _namespace(), pid, _started(pid))

    @property
    def life(self) -> Life:
        """Return whether it exists, as far as this process can see."""
        here = Process.this()
        if (self.host, self.boot, self.namespace) != (here.host, here.boot, here.namespace):
            return Life.UNSEEN
        started = _started(self.pid)
        return Life.ALIVE if started and started == self.started else Life.GONE

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def sign(**more: str | int) -> str:
    """Return this process as a text for `process_of`, with further values."""
    return json.dumps({**asdict(Process.this()), **more})


def process_of(text: str) -> Process | None:
    """Return the process that signed a text; None if the text is from another program or an older version."""
    try:
        content = json.loads(text)
        found = Process(**{item.name: content[item.name] for item in fields(Process)})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found.pid, int) and found.pid > 0 else None


def life_of(text: str) -> Life:
    """Return what is known about the process that signed a text; nothing if it is unreadable."""
    process = process_of(text)
    return process.life if process else Life.UNSEEN


def _boot() -> str:
    """Return an id of the host's current boot; psutil has only its time, by a clock that may be adjusted."""
    return _of_kernel(Path("/proc/sys/kernel/random/boot_id").read_text)


def _namespace() -> str:
    return _of_kernel(lambda: os.readlink("/proc/self/ns/pid"))


def _of_kernel(read: Callable[[], str]) -> str:
    try:
        return read().strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process started, because process ids are reused; empty if there is none, or only a zombie.

    The value is in kernel ticks since boot: psutil's start and boot times change when the clock is adjusted, but their
    difference does not.
    """
    try:
        process = psutil.Process(pid)
        seconds = process.create_time() - psutil.boot_time()
        ended = process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return ""
    return "" if ended else str(round(seconds * os.sysconf("SC_CLK_TCK")))
