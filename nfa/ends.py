"""How a program ends: signals become one exception, raised only where nothing is half done."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; `exit_code` is 130 or 143."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class _Signals:
    def __init__(self) -> None:
        self.shields = 0
        self.pending: int | None = None

    def arrive(self, signum: int, _frame: FrameType | None) -> None:
        # MLflow forwards SIGTERM right after the terminal's SIGINT: only the first one counts, so saving survives.
        if self.pending is None:
            self.pending = signum
            self.release()

    def release(self) -> None:
        # Again at the next shield, should Python have swallowed it (it does in __del__ and other callbacks).
        if self.pending is not None and not self.shields and not _being_handled():
            raise Interrupted(self.pending)


def _being_handled() -> bool:
    error = sys.exception()
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error is not None


_signals = _Signals()


def listen() -> None:
    """Turn SIGINT and SIGTERM into `Interrupted` from now on (main thread only)."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _signals.arrive)


@contextmanager
def shielded() -> Iterator[None]:
    """Hold signals back while weights, optimizer state or the tracking store change together."""
    _signals.shields += 1
    try:
        yield
    finally:
        _signals.shields -= 1
    _signals.release()


@contextmanager
def exposed() -> Iterator[None]:
    """Let signals through in the midst of what holds them back: for our own code that a library calls."""
    shields, _signals.shields = _signals.shields, 0
    try:
        _signals.release()
        yield
    finally:
        _signals.shields = shields
