"""Which process works on something, and what can be said of it from here."""

import enum
import json
import os
import socket
from dataclasses import asdict, dataclass, fields
from pathlib import Path


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
        return cls(socket.gethostname(), _boot(), _namespace(), pid, _started(pid) or "")

    @property
    def life(self) -> Life:
        """Whether it exists, as far as this process can see."""
        here = Process.this()
        if (self.host, self.boot, self.namespace) != (here.host, here.boot, here.namespace):
            return Life.UNSEEN
        exists = _exists(self.pid) and (_started(self.pid) or "") == self.started
        return Life.ALIVE if exists else Life.GONE

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
    return _read(Path("/proc/sys/kernel/random/boot_id")).strip()


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _started(pid: int) -> str | None:
    """When a process started: its number may by now be another one's. None for a zombie and where there is no /proc."""
    parts = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return None if not parts or parts[0] == "Z" else parts[19]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
