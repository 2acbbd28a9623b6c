"""Studies of two workers that lose a worker, their launcher, or are started twice."""

import os
import signal

import psutil

from benchmarks.chaos.campaign import Scenario
from benchmarks.chaos.processes import LIMIT, Process, session
from benchmarks.chaos.rounds import KILLED, Round

STUDY = {
    "study_name": "study",
    "n_trials": 6,
    "n_workers": 2,
    "sampler": "random",  # a trial's point depends on nothing but its number
    "pruner": "none",
    "confirm": 0,
    "space": "lr=log:1e-3:1",
    "fixed": "epochs=40,width=8,depth=2,schedule=0-40/4,batch_size=64",
}


def study(here: Round) -> None:
    """Undisturbed."""
    here.prepare()
    here.done("tune", STUDY)


def _under_way(here: Round) -> Process:
    process = here.start("tune", STUDY)
    first = here.random.randrange(3)
    process.says(f"trial {first} ")
    here.clock.sleep(here.random.uniform(0, 1))
    return process


def lost_worker(here: Round, _number: int) -> None:
    """SIGKILL to a worker: the study goes on."""
    here.prepare()
    process = _under_way(here)
    os.kill(here.random.choice(_workers(process)), signal.SIGKILL)
    here.ends(process, {0})


def _workers(process: Process) -> list[int]:
    """The others of the session are helpers of Python's."""
    return sorted(pid for pid in session(process.pid) if "spawn_main" in " ".join(psutil.Process(pid).cmdline()))


def lost_launcher(here: Round, _number: int) -> None:
    """SIGKILL to the launcher: its workers end; started again, the study goes on."""
    here.prepare()
    process = _under_way(here)
    process.send(signal.SIGKILL)
    here.ends(process, {0, KILLED})
    if not process.alone(LIMIT):
        here.fault("workers outlive their launcher")
    here.done("tune", STUDY)


def started_twice(here: Round, _number: int) -> None:
    """The same study, started twice at the same moment: each trial is done once."""
    here.prepare()
    for process in [here.start("tune", STUDY), here.start("tune", STUDY)]:
        here.ends(process, {0})


SCENARIOS = [
    Scenario(
        "lost worker",
        "a study with two workers; one of them is killed with SIGKILL",
        lost_worker,
        study,
        rounds=2,
        seconds=30,
        once=True,
    ),
    Scenario(
        "lost launcher",
        "a study whose launcher is killed with SIGKILL; then started again",
        lost_launcher,
        study,
        rounds=2,
        seconds=40,
        once=True,
    ),
    Scenario(
        "study twice",
        "a study is started twice at the same moment",
        started_twice,
        study,
        rounds=2,
        seconds=45,
        once=True,
    ),
]
