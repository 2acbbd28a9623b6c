"""Signals as one exception, raised only between operations that must not be torn apart."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        self.since = 0.0  # when it arrived, by time.monotonic()

    def arrive(self, signum: int, _frame: FrameType | None) -> None:
        # MLflow forwards SIGTERM right after the terminal's SIGINT: only the first one counts, so saving survives.
        if self.pending is None:
            self.pending, self.since = signum, time.monotonic()
            self.release()

    def release(self) -> None:
        # Raised again at the next shield in case Python has swallowed it, as it does in __del__ and other callbacks.
        if self.pending is not None and not self.shields and not _being_handled():
            raise Interrupted(self.pending)


def _being_handled() -> bool:
    error = sys.exception()
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error is not None


_signals = _Signals()


def listen() -> None:
    """Turn SIGINT and SIGTERM into `Interrupted` from now on (main thread only).

    If Python swallows the exception, as in `__del__` and other callbacks, it is raised again and not printed.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _signals.arrive)
    usual = sys.unraisablehook
    sys.unraisablehook = lambda event: None if isinstance(event.exc_value, Interrupted) else usual(event)


class SigtermListener:
    """Turns SIGTERM into `SystemExit`, so that a program that does not handle the signal still leaves its blocks.

    Attributes:
        received: The signal, or None if it has not arrived.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def start(self) -> None:
        """Listen from now on, in the main thread of a program that does not handle SIGTERM itself."""
        with suppress(ValueError):  # not in the main thread
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, self._end)

    def stop(self) -> None:
        """Let SIGTERM end the program again, if it was this object that listened."""
        with suppress(ValueError):
            if signal.getsignal(signal.SIGTERM) == self._end:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _end(self, signum: int, _frame: FrameType | None) -> None:
        self.received = signum
        raise SystemExit(128 + signum)


def stopping() -> float | None:
    """Return the `time.monotonic()` at which a signal asked this process to end, or None."""
    return None if _signals.pending is None else _signals.since


def stopped() -> Interrupted | None:
    """Return the signal that asked this process to end, to be raised instead of an error that it caused."""
    return None if _signals.pending is None else Interrupted(_signals.pending)


@contextmanager
def shielded() -> Iterator[None]:
    """Delay signals while weights, optimizer state or the tracking store change together."""
    _signals.shields += 1
    try:
        yield
    finally:
        _signals.shields -= 1
    _signals.release()


@contextmanager
def exposed() -> Iterator[None]:
    """Let signals through inside a shield, for our own code that a library calls."""
    shields, _signals.shields = _signals.shields, 0
    try:
        _signals.release()
        yield
    finally:
        _signals.shields = shields
