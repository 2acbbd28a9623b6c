"""Analyses that are killed and asked again, or asked twice at once."""

import signal

from benchmarks.chaos.campaign import Scenario
from benchmarks.chaos.rounds import KILLED, Round
from benchmarks.chaos.scenarios.kills import TRAINING

ANALYSIS = {"run_id": "latest", "run_name": "analysis"}


def analysis(here: Round) -> None:
    """A training and its analysis, undisturbed."""
    here.prepare()
    here.done("train", TRAINING)
    here.done("analyze", ANALYSIS)


def asked_again(here: Round, _number: int) -> None:
    """SIGKILL in the midst of an analysis; asked again, it gives all of it."""
    here.prepare()
    here.done("train", TRAINING)
    process = here.start("analyze", ANALYSIS)
    here.at_epoch(process, here.random.randrange(60))
    process.send(signal.SIGKILL)
    here.ends(process, {0, KILLED})
    here.done("analyze", ANALYSIS)


def asked_twice(here: Round, _number: int) -> None:
    """Two equal analyses at the same moment: both give all of it."""
    here.prepare()
    here.done("train", TRAINING)
    for process in [here.start("analyze", ANALYSIS), here.start("analyze", ANALYSIS)]:
        here.ends(process, {0})


SCENARIOS = [
    Scenario(
        "analysis killed",
        "an analysis is killed with SIGKILL; then asked for again",
        asked_again,
        analysis,
        rounds=2,
        seconds=25,
    ),
    Scenario(
        "analysis twice",
        "two equal analyses are started at the same moment",
        asked_twice,
        analysis,
        rounds=2,
        seconds=25,
    ),
]
