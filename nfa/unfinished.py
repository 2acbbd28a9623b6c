"""What is not whole yet: it lies in a folder of its own, beside where it goes, and is moved there once it is whole.

Every such folder has a name that begins with `PREFIX` and a file that its process holds locked. The kernel ends a lock
with its process, however that ends, and knows it in other containers too: what nobody holds, the next process removes.
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
    """A new folder inside `parent`, gone at the end, however that comes; what killed processes left there goes first.

    Parents that are missing are made, and are gone at the end if nothing has been put into them.
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
    """A new folder and its lock; none on a file system without locks, where nothing is ever swept."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        try:
            return folder, _locked(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # swept between the two
        except OSError:
            return folder, None


def _locked(folder: Path) -> int:
    """The descriptor that holds a folder's lock; `OSError` where another one holds it, or has just removed it."""
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
    """Remove what this user's processes that are no more have left directly inside a folder."""
    for left in folder.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if left.is_symlink() or left.stat().st_uid != os.getuid():
                continue  # in a folder that everybody may write to, somebody else's
            lock = _locked(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)


def write(target: Path, make: Callable[[Path], object]) -> None:
    """Let `make` write a file, which replaces `target` once it is whole."""
    with folder_in(target.parent) as folder:
        make(folder / target.name)
        os.replace(folder / target.name, target)


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder`, filled by `make` where it does not exist; seen whole or not at all, also by several processes."""
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
    """This process's folder for what it needs for a while: gone when it ends, after a kill when the next one comes."""
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
    """Within the block, temporary files of libraries lie in this process's place, too."""
    before, tempfile.tempdir = tempfile.tempdir, str(place())
    try:
        yield
    finally:
        tempfile.tempdir = before
