"""Disks that are full, and limits of file sizes."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from benchmarks.chaos.campaign import Scenario
from benchmarks.chaos.judgement import look_for_litter
from benchmarks.chaos.rounds import Round
from benchmarks.chaos.scenarios.kills import TRAINING, training

FAILED, REFUSED = 1, 2
TOO_SMALL, ENOUGH = 8, 64  # MB
NEW_NAMESPACE = 0x00020000  # CLONE_NEWNS


@cache
def own_mounts() -> bool:
    """From now on this process's mounts are seen by nobody else, and gone with it (root, before any thread starts)."""
    return ctypes.CDLL(None).unshare(NEW_NAMESPACE) == 0 and _call("mount", "--make-rprivate", "/")


def _call(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def mounts_missing() -> str:
    """Why there cannot be a small disk."""
    if os.geteuid() != 0:
        return "needs root"
    return "" if own_mounts() else "needs mounts of its own"


def limits_missing() -> str:
    """Why a command cannot be given a limit."""
    return "" if shutil.which("prlimit") else "needs prlimit"


@contextmanager
def _disk(folder: Path, megabytes: int) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def too_small(here: Round, _number: int) -> None:
    """A disk without room for the artifacts: refused; with room, trained."""
    here.prepare()
    with _disk(here.work / "mlruns", TOO_SMALL):
        here.ends(here.start("train", TRAINING), {REFUSED})
    here.done("train", TRAINING)


def filled(here: Round, number: int) -> None:
    """A disk that fills in mid training, under the artifacts or the database too: failed; emptied, resumed."""
    folder = here.work if number % 2 else here.work / "mlruns"
    here.at_end.enter_context(_disk(folder, ENOUGH))
    here.prepare()
    process = here.start("train", TRAINING)
    here.at_epoch(process, here.random.randrange(3, 30))
    ballast = folder / "ballast"
    _fill(ballast)
    here.ends(process, {FAILED})
    ballast.unlink()
    look_for_litter(here)
    here.ends(here.go_on(TRAINING), {0})


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            return


def limited(here: Round, number: int) -> None:
    """A limit of file sizes below the weights: refused; or one that the database meets in mid training: failed."""
    here.prepare()
    grown = (here.work / "mlflow.db").stat().st_size + 80 * 1024
    words, limit, code = (TRAINING, grown, FAILED) if number % 2 else ({**TRAINING, "width": 1024}, 2**20, REFUSED)
    here.ends(here.start("train", words, by=("prlimit", f"--fsize={limit}")), {code})
    look_for_litter(here)
    here.ends(here.go_on(TRAINING) if number % 2 else here.start("train", TRAINING), {0})


SCENARIOS = [
    Scenario(
        "disk too small",
        "artifacts on a disk of 8 MB: the training is refused; with enough space it is trained",
        too_small,
        training,
        rounds=1,
        seconds=15,
        missing=mounts_missing,
    ),
    Scenario(
        "disk filled",
        "the disk with the artifacts, or with database and artifacts, becomes full during training; then emptied, "
        "and resumed",
        filled,
        training,
        rounds=4,
        seconds=20,
        missing=mounts_missing,
    ),
    Scenario(
        "file size limit",
        "ulimit -f is below the size of the weights, or the database reaches it during training; then lifted, and "
        "resumed",
        limited,
        training,
        rounds=2,
        seconds=20,
        missing=limits_missing,
    ),
]
