"""Acts at chosen moments of a program: a signal, a fault, a count."""

import importlib
import itertools
import multiprocessing.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import NFA, run
from tests.support.stores import Store


@dataclass(frozen=True)
class AtCall:
    """Runs `act` at the `number`-th call of a function of nfa in this process; `act` and this are picklable.

    Counting calls instead of seconds reaches every part of a run, however fast the machine is.
    """

    number: int
    act: Callable[[], None]

    def __call__(self) -> None:
        left = self.number

        def count(frame: Any, event: str, _argument: Any) -> None:
            nonlocal left
            if event in ("call", "c_call") and frame.f_code.co_filename.startswith(NFA):
                left -= 1
                if left == 0:
                    sys.setprofile(None)
                    self.act()

        sys.setprofile(count)


@dataclass(frozen=True)
class During:
    """Runs `act` at the `number`-th call of `name` ("function" or "Class.method") of a module, and then the call."""

    module: str
    name: str
    act: Callable[[], None]
    number: int = 1

    def __call__(self) -> None:
        owner: Any = importlib.import_module(self.module)
        *path, name = self.name.split(".")
        for part in path:
            owner = getattr(owner, part)
        original, calls = getattr(owner, name), itertools.count(1)

        def wrapped(*args: Any, **named: Any) -> Any:
            if next(calls) == self.number:
                self.act()
            return original(*args, **named)

        setattr(owner, name, wrapped)


@dataclass(frozen=True)
class Send:
    """Sends this process a signal, or several one after the other."""

    signums: tuple[int, ...]

    def __call__(self) -> None:
        for signum in self.signums:
            os.kill(os.getpid(), signum)


@dataclass(frozen=True)
class Raise:
    """A fault of the program."""

    message: str

    def __call__(self) -> None:
        raise RuntimeError(self.message)


@dataclass(frozen=True)
class Count:
    """Counts the calls that `AtCall` would, and writes their number to a file at the end."""

    path: str

    def __call__(self) -> None:
        total = 0

        def count(frame: Any, event: str, _argument: Any) -> None:
            nonlocal total
            total += event in ("call", "c_call") and frame.f_code.co_filename.startswith(NFA)

        multiprocessing.util.Finalize(None, lambda: Path(self.path).write_text(str(total)), exitpriority=1)
        sys.setprofile(count)


def counted_calls(store: Store, argv: Sequence[str]) -> int:
    """How many calls `AtCall` can choose from in a run with these words."""
    file = store.folder / "calls"
    ended = run(store, argv, before=Count(str(file)))
    assert ended.code == 0, ended.output
    return int(file.read_text())


TERM, INT, KILL = Send((signal.SIGTERM,)), Send((signal.SIGINT,)), Send((signal.SIGKILL,))
