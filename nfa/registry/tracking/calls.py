"""Calls to the store, none of which can hold the process for ever.

A call runs in a thread of its own while this one waits for its answer, because a server that hangs, a database behind a
lock or a dead mount cannot be interrupted. What reads or writes files (up- and downloads) makes progress and is waited
for; what is silent for too long is given up, and after a signal within seconds.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from nfa.registry import signals

Answer = TypeVar("Answer")
LIMIT = 300.0  # seconds of silence until a call is given up: a server that is started anew is waited for
BEGINNING = 60.0  # the same before any work has started
AFTER_SIGNAL = 5.0  # the same once the process has been asked to end
POLL = 0.05  # seconds between looks at a call that takes its time
_NAME = "nfa call to a store"
NOISE = 1024  # bytes that a thread may read without being at work, between two looks


class Unanswered(OSError):
    """The store did not answer in time."""


class _Limits:
    def __init__(self) -> None:
        self.silence = LIMIT
        self.given_up = False  # after a signal: the store is not asked again
        self.left: list[threading.Thread] = []  # calls that were given up and may still hang


_limits = _Limits()


@contextmanager
def beginning(silence: float = BEGINNING) -> Iterator[None]:
    """A shorter limit, or this one, while nothing has started that could be lost."""
    before, _limits.silence = _limits.silence, silence
    try:
        yield
    finally:
        _limits.silence = before


def is_hanging() -> bool:
    """Whether a call that was given up still hangs; an orderly exit of Python could then wait for it."""
    return any(thread.is_alive() for thread in _limits.left)


def limited(call: Callable[..., Answer], *words: Any, **named: Any) -> Answer:
    """What `call(*words, **named)` returns or raises; `Unanswered` where it is silent for too long."""
    if threading.current_thread().name == _NAME:  # part of a call that is limited already
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
    """Until there is an answer, or for too long nothing has moved."""
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
    """Bytes that a thread has read from and written to files so far; 0 where the system does not tell."""
    try:
        counts = Path(f"/proc/self/task/{thread.native_id}/io").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(counts[1]) + int(counts[3])
