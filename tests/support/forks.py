"""Processes that end in the midst of their work, and what they leave."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


def in_process(work: Callable[..., Any], *given: Any) -> int | None:
    """How a fork of this process ends that does this work."""
    process = multiprocessing.get_context("fork").Process(target=work, args=given)
    process.start()
    process.join()
    return process.exitcode


def killed(work: Callable[..., Any], *given: Any) -> None:
    """Do work in which a process kills itself."""
    assert in_process(work, *given) == -signal.SIGKILL


def fill_and_die(file: Path) -> None:
    """What a process does that is killed while it writes a file."""
    file.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)


def files(folder: Path) -> list[str]:
    """Paths of all files in a folder and below."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
