"""Which process works on something, and what can be said of it from here."""

import enum
import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil


class Life(enum.Enum):
    """What is known of another process: it exists, it is no more, or it cannot be seen from here."""

    ALIVE = "alive"
    GONE = "gone"
    UNSEEN = "unseen"


@dataclass(frozen=True)
class Process:
    """A process, told from every other of this host and of all others.

    Its number says something only on its host, since the same start of it and in the same PID namespace: a container
    counts its processes anew and may have the name of its host.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> "Process":
        """The one that asks."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot(), _namespace(), pid, _started(pid))

    @property
    def life(self) -> Life:
        """Whether it exists, as far as this process can see."""
        here = Process.this()
        if (self.host, self.boot, self.namespace) != (here.host, here.boot, here.namespace):
            return Life.UNSEEN
        started = _started(self.pid)
        return Life.ALIVE if started and started == self.started else Life.GONE

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def sign(**more: str | int) -> str:
    """This process as a text that `process_of` reads, with whatever else is to be told."""
    return json.dumps({**asdict(Process.this()), **more})


def process_of(text: str) -> Process | None:
    """The process that signed a text; None where it is of another program or an older version."""
    try:
        content = json.loads(text)
        found = Process(**{item.name: content[item.name] for item in fields(Process)})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found.pid, int) and found.pid > 0 else None


def life_of(text: str) -> Life:
    """What can be said of the process that signed a text; an unreadable one says nothing."""
    process = process_of(text)
    return process.life if process else Life.UNSEEN


def _boot() -> str:
    """Which start of the host this is; psutil only knows when it was, by a clock that is set anew."""
    return _of_kernel(Path("/proc/sys/kernel/random/boot_id").read_text)


def _namespace() -> str:
    return _of_kernel(lambda: os.readlink("/proc/self/ns/pid"))


def _of_kernel(read: Callable[[], str]) -> str:
    try:
        return read().strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, since its number may by now be another one's; empty where there is none, or a zombie.

    In the kernel's ticks since the host's start: psutil's two times change where the clock is set, their difference
    does not.
    """
    try:
        process = psutil.Process(pid)
        seconds = process.create_time() - psutil.boot_time()
        ended = process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return ""
    return "" if ended else str(round(seconds * os.sysconf("SC_CLK_TCK")))
