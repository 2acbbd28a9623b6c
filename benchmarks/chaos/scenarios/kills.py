"""Trainings that are ended at random moments and resumed until they finish."""

import signal

from benchmarks.chaos.campaign import Scenario
from benchmarks.chaos.rounds import INTERRUPTED, KILLED, TERMINATED, Round

TRAINING = {
    "run_name": "training",
    "width": 8,
    "depth": 2,
    "batch_size": 64,
    "epochs": 80,
    "schedule": "0-80",
}
KILLS = 3  # in a round; then it may finish


def training(here: Round) -> None:
    """Undisturbed."""
    here.prepare()
    here.done("train", TRAINING)


def killed(here: Round, number: int) -> None:
    """SIGKILL, resume, SIGKILL …; every other time in a folder without a database."""
    if number % 2:
        here.prepare()
    for _ in range(KILLS):
        process = here.go_on(TRAINING)
        here.at_a_random_moment(process)
        process.send(signal.SIGKILL)
        if here.ends(process, {0, KILLED}) == 0:
            return
    here.ends(here.go_on(TRAINING), {0})


def interrupted(here: Round, number: int) -> None:
    """SIGINT followed at once by SIGTERM, as MLflow passes Ctrl-C on; every other time SIGTERM alone."""
    here.prepare()
    signums, code = ((signal.SIGTERM,), TERMINATED) if number % 2 else ((signal.SIGINT, signal.SIGTERM), INTERRUPTED)
    process = here.start("train", TRAINING)
    here.at_epoch(process, here.random.randrange(40))
    here.clock.sleep(here.random.uniform(0, 0.2))
    process.send(*signums)
    here.ends(process, {code})
    for run in here.runs():
        if (run.state, run.status) != ("killed", "KILLED"):
            here.fault(f"after a signal the run says {run.status}, {run.state}")
    here.ends(here.go_on(TRAINING), {0})


SCENARIOS = [
    Scenario(
        "killed",
        "killed with SIGKILL at a random moment, even during imports, then resumed; three times, and then left to "
        "finish",
        killed,
        training,
        rounds=4,
        seconds=30,
    ),
    Scenario(
        "killed, odd folder",
        "the same, in a folder whose name has spaces, a percent sign and an umlaut",
        killed,
        training,
        rounds=2,
        seconds=30,
        typed_in="ä folder, 100%25 odd",
    ),
    Scenario(
        "interrupted",
        "interrupted with SIGINT and at once SIGTERM, or with SIGTERM alone; then resumed",
        interrupted,
        training,
        rounds=4,
        seconds=20,
    ),
]
