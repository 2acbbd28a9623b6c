"""Tracking servers that hang, or go away."""

import signal

from benchmarks.chaos.campaign import Scenario
from benchmarks.chaos.rounds import INTERRUPTED, Round
from benchmarks.chaos.scenarios.kills import TRAINING
from benchmarks.chaos.servers import TrackingServer

SERVED = {**TRAINING, "epochs": 60, "schedule": "0-60/2"}
SOON, SLACK = 5.0, 2.0  # seconds to end in after a signal; as much more is let pass on a machine that is busy


def served_training(here: Round) -> None:
    """Undisturbed."""
    TrackingServer(here)
    here.done("train", SERVED)


def interrupted_while_hung(here: Round, _number: int) -> None:
    """The server is stopped, the training interrupted; the server goes on, the training is resumed."""
    server = TrackingServer(here)
    process = here.start("train", SERVED)
    here.at_epoch(process, here.random.randrange(2, 30, 2))
    server.hang()
    here.clock.sleep(here.random.uniform(0, 1))
    process.send(signal.SIGINT)
    here.ends_soon(process, INTERRUPTED, within=SOON, slack=SLACK)
    server.go_on()
    here.ends(here.go_on(SERVED), {0})


def waiting_while_hung(here: Round, number: int) -> None:
    """The server is stopped for a while: the training waits, and finishes."""
    server = TrackingServer(here)
    process = here.start("train", SERVED)
    here.at_epoch(process, here.random.randrange(2, 30, 2))
    server.hang()
    here.clock.sleep(8 + 8 * number)
    server.go_on()
    here.ends(process, {0})


def killed_server(here: Round, number: int) -> None:
    """The server is killed; the training is interrupted, or goes on as long as it can; both are started again."""
    server = TrackingServer(here)
    process = here.start("train", SERVED)
    here.at_epoch(process, here.random.randrange(2, 30, 2))
    server.kill()
    here.clock.sleep(here.random.uniform(0, 2))
    if number % 2 == 0:
        process.send(signal.SIGINT)
        here.ends_soon(process, INTERRUPTED, within=SOON, slack=SLACK)
    server.start()
    if process.ended or here.ends(process, {0, 1}) != 0:
        here.ends(here.go_on(SERVED), {0})


SCENARIOS = [
    Scenario(
        "hung and interrupted",
        "the tracking server is stopped (SIGSTOP) and the training gets SIGINT; then SIGCONT, and resumed",
        interrupted_while_hung,
        served_training,
        rounds=3,
        seconds=40,
    ),
    Scenario(
        "hung",
        "the tracking server is stopped for 8 or 16 s while the training continues",
        waiting_while_hung,
        served_training,
        rounds=2,
        seconds=40,
    ),
    Scenario(
        "server killed",
        "the tracking server is killed, with and without SIGINT to the training; then started again, and resumed",
        killed_server,
        served_training,
        rounds=4,
        seconds=45,
    ),
]
