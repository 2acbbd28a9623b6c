"""Several processes that want the same run."""

import os
import shutil
import signal
from collections import Counter

from benchmarks.chaos.campaign import Scenario
from benchmarks.chaos.rounds import KILLED, Round
from benchmarks.chaos.scenarios.kills import TRAINING

LONG = {**TRAINING, "epochs": 150, "schedule": "0-150"}  # some seconds are left when another one comes
LIVING = {**TRAINING, "batch_size": 2, "epochs": 80, "schedule": "0-80/5"}  # lives longer than two signs of life
REFUSED = 2
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def long_training(here: Round) -> None:
    """Undisturbed."""
    here.prepare()
    here.done("train", LONG)


def together(here: Round, number: int) -> None:
    """Two or three resumes of one killed run, started at the same moment: one goes on."""
    here.prepare()
    first = here.start("train", LONG)
    here.at_epoch(first, here.random.randrange(3, 30) if number % 3 else 110)  # late: more models than MLflow lists
    first.send(signal.SIGKILL)
    here.ends(first, {KILLED})
    (run,) = here.runs()
    rivals = [here.start("train", {"resume": run.run_id}) for _ in range(2 + number % 2)]
    codes = Counter(here.ends(rival, {0, REFUSED}) for rival in rivals)
    if codes[0] != 1:
        here.fault(f"{codes[0]} of {len(rivals)} resumes went on, not one")


def living_training(here: Round) -> None:
    """Undisturbed."""
    here.prepare()
    here.done("train", LIVING)


def from_elsewhere(here: Round, _number: int) -> None:
    """A run that is alive, resumed from another PID namespace of the same host name: refused."""
    here.prepare()
    living = here.start("train", LIVING)
    here.at_epoch(living, 0)
    (run,) = here.runs()
    here.ends(here.start("train", {"resume": run.run_id}, by=NAMESPACE), {REFUSED})
    here.ends(living, {0})


def namespaces_missing() -> str:
    """Why there cannot be another PID namespace."""
    if os.geteuid() != 0:
        return "needs root"
    return "" if shutil.which("unshare") else "needs unshare"


SCENARIOS = [
    Scenario(
        "together",
        "one killed run is resumed by two or three processes at the same moment",
        together,
        long_training,
        rounds=4,
        seconds=35,
    ),
    Scenario(
        "elsewhere",
        "a running run is resumed from another PID namespace with the same host name",
        from_elsewhere,
        living_training,
        rounds=2,
        seconds=25,
        missing=namespaces_missing,
    ),
]
