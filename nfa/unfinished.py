"""Files and folders that are not complete yet: each is written in a folder of its own beside its destination, and moved
there once it is complete.

The name of such a folder begins with `PREFIX`, and a file in it is locked by its process. The kernel releases the lock
when the process ends, for whatever reason, and enforces it across containers. A folder that nobody holds is removed by
the next process.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path

PREFIX = ".nfa-unfinished-"
LOCK = ".lock"


@contextmanager
def folder_in(parent: Path) -> Iterator[Path]:
    """Create a folder inside `parent` and remove it after the block, whatever happens; first remove what killed
    processes left.

    Missing parents are created, and removed after the block if nothing has been put into them.
    """
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        sweep(parent)
        folder, lock = _held(parent)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if lock is not None:
                os.close(lock)
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def _held(parent: Path) -> tuple[Path, int | None]:
    """Create a folder and lock it; on a file system without locks there is no lock, and nothing is ever removed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        try:
            return folder, _locked(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # removed by another process in between
        except OSError:
            return folder, None


def _locked(folder: Path) -> int:
    """Return the descriptor that holds a folder's lock; `OSError` where another process holds it or has just removed
    it.
    """
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(lock).st_nlink:
            raise FileNotFoundError(folder)
    except OSError:
        os.close(lock)
        raise
    return lock


def sweep(folder: Path) -> None:
    """Remove the folders directly inside `folder` that ended processes of this user have left."""
    for left in folder.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if left.is_symlink() or left.stat().st_uid != os.getuid():
                continue  # another user's, in a folder that everybody may write to
            lock = _locked(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)


def write(target: Path, make: Callable[[Path], object]) -> None:
    """Let `make` write a file, which replaces `target` once it is complete."""
    with folder_in(target.parent) as folder:
        make(folder / target.name)
        os.replace(folder / target.name, target)


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Return `folder`, filled by `make` if it does not exist; several processes see it complete or not at all."""
    if not folder.is_dir():
        with folder_in(folder.parent) as outer:
            inner = outer / folder.name
            inner.mkdir()
            make(inner)
            try:
                inner.rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
    return folder


def place() -> Path:
    """Return this process's temporary folder; it is removed when the process ends, or after a kill by the next process.
    """
    return _place(os.getpid())


@cache
def _place(_pid: int) -> Path:
    parent = Path(tempfile.gettempdir())
    sweep(parent)
    folder, _ = _held(parent)
    # Unlike atexit's, it is also called in processes that multiprocessing has started, and not in forks of this one.
    Finalize(None, shutil.rmtree, (folder, True), exitpriority=-100)
    return folder


@contextmanager
def temporary_files() -> Iterator[None]:
    """Put the temporary files of libraries into this process's temporary folder within the block."""
    before, tempfile.tempdir = tempfile.tempdir, str(place())
    try:
        yield
    finally:
        tempfile.tempdir = before
