"""Calls to the store with time limits.

Each call runs in a thread of its own while this one waits for its answer, because a hanging server, a locked database
or a dead mount cannot be interrupted. Calls that read or write bytes (uploads and downloads) make progress and are
waited for. Calls that are silent for too long are given up; after a signal, within seconds.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from nfa.registry import signals

Answer = TypeVar("Answer")
LIMIT = 300.0  # seconds of silence until a call is given up, long enough for a server to restart
BEGINNING = 60.0  # the same limit before any work has started
AFTER_SIGNAL = 5.0  # the same limit after a signal
POLL = 0.05  # seconds between two checks of a running call
_NAME = "nfa call to a store"
NOISE = 1024  # bytes that an idle thread may read between two checks


class Unanswered(OSError):
    """The store did not answer in time."""


class _Limits:
    def __init__(self) -> None:
        self.silence = LIMIT
        self.given_up = False  # after a signal the store is not called again
        self.left: list[threading.Thread] = []  # of calls that were given up and may still hang


_limits = _Limits()


@contextmanager
def beginning(silence: float = BEGINNING) -> Iterator[None]:
    """Use a shorter limit, or this one, while no work has started that could be lost."""
    before, _limits.silence = _limits.silence, silence
    try:
        yield
    finally:
        _limits.silence = before


def is_hanging() -> bool:
    """Return whether a call that was given up still hangs; Python's normal exit could then wait for it."""
    return any(thread.is_alive() for thread in _limits.left)


def limited(call: Callable[..., Answer], *words: Any, **named: Any) -> Answer:
    """Return or raise what `call(*words, **named)` does; raise `Unanswered` if it is silent for too long."""
    if threading.current_thread().name == _NAME:  # inside a call that already has a limit
        return call(*words, **named)
    if _limits.given_up and signals.stopping():
        raise Unanswered("the store was given up after a signal")
    answered = threading.Event()
    found: list[Answer] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(call(*words, **named))
        except BaseException as error:
            failed.append(error)
        answered.set()

    thread = threading.Thread(target=work, name=_NAME, daemon=True)
    thread.start()
    try:
        _wait(thread, answered)
    except BaseException:
        _limits.left.append(thread)
        raise
    if failed:
        raise failed[0]
    return found[0]


def _wait(thread: threading.Thread, answered: threading.Event) -> None:
    """Wait until there is an answer, or until there was no progress for too long."""
    began = moved = time.monotonic()
    amount = _amount(thread)
    while not answered.wait(POLL):
        now = time.monotonic()
        if (read := _amount(thread)) > amount + NOISE:
            amount, moved = read, now
        signalled = signals.stopping()
        silence = AFTER_SIGNAL if signalled else _limits.silence
        if now - max(moved, signalled or began) > silence:
            _limits.given_up = bool(signalled)
            raise Unanswered(f"the store did not answer for {silence:.0f} s")


def _amount(thread: threading.Thread) -> int:
    """Return the bytes that a thread has read and written so far; 0 if the system does not report them."""
    try:
        counts = Path(f"/proc/self/task/{thread.native_id}/io").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(counts[1]) + int(counts[3])
