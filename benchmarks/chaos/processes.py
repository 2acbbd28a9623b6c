"""A real process of the product, as a user starts it, in a session of its own."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.chaos.clock import POLL, Clock

LIMIT = 200.0  # seconds that nothing here may take, however busy the machine is


class Process:
    """A command whose terminal is the file `terminal`.

    It is reaped only by `kill`: until then its number, and that of its session, can be nobody else's.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], terminal: Path, clock: Clock
    ) -> None:
        self.terminal, self.clock = terminal, clock
        module, first = command[command.index("-m") + 1 :][:2]
        self.name = first if module == "nfa" else module
        with terminal.open("wb") as output:
            self._popen = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self.terminal.read_text(encoding="utf-8", errors="replace")

    @property
    def last_words(self) -> str:
        """The end of what it has said: the error, if there is one."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error:")]
        return (errors or lines or ["nothing"])[-1][:200]

    @property
    def ended(self) -> bool:
        """Whether it is no more."""
        return self._code is not None

    @property
    def _code(self) -> int | None:
        """What it has exited with, negative for a signal; None while it lives."""
        if self._popen.returncode is not None:
            return int(self._popen.returncode)
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def says(self, text: str, seconds: float = LIMIT) -> bool:
        """Wait until it has said `text`; False where it ends, or takes too long, without."""
        self.clock.wait(lambda: text in self.output or self.ended, seconds)
        return text in self.output

    def send(self, *signums: int) -> None:
        """Signals, one right after the other."""
        for signum in signums:
            os.kill(self.pid, signum)

    def send_session(self, signum: int) -> None:
        """A signal to it and to all that it has started."""
        for pid in session(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)

    def end(self, seconds: float = LIMIT) -> int | None:
        """Its exit code; None where it had to be killed because it took longer than `seconds`."""
        if self.clock.wait(lambda: self.ended, seconds):
            return self._code
        self.kill()
        return None

    def seconds_to_end(self, at_most: float) -> float:
        """How long it lives from now on."""
        start = time.monotonic()
        self.clock.wait(lambda: self.ended, at_most)
        return time.monotonic() - start

    def alone(self, seconds: float) -> bool:
        """Whether all that it has started has ended too, within so many seconds."""
        reaped = self._popen.returncode is not None
        return reaped or self.clock.wait(lambda: not set(session(self.pid)) - {self.pid}, seconds)

    def kill(self) -> None:
        """End it and all that it has started, once."""
        if self._popen.returncode is None:
            while any(session(self.pid)):
                self.send_session(signal.SIGKILL)
                time.sleep(POLL)
            self._popen.wait()


def session(leader: int) -> Iterator[int]:
    """Processes of the session that `leader` began; zombies are none."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                yield process.pid
