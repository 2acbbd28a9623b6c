"""How a program ends: signals become one exception, raised only where nothing is half done."""

import signal
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
        self.raised = False

    def arrive(self, signum: int, _frame: FrameType | None) -> None:
        # MLflow forwards SIGTERM right after the terminal's SIGINT: only the first one counts, so saving survives.
        if self.raised or self.pending is not None:
            return
        self.pending = signum
        self.release()

    def release(self) -> None:
        if self.pending is not None and not self.shields and not self.raised:
            self.raised = True
            raise Interrupted(self.pending)


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
