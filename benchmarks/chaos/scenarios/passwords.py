"""A password in the address of the store: it shows nowhere, whatever happens. (It is in every round's environment.)"""

import signal

from benchmarks.chaos import files
from benchmarks.chaos.campaign import Scenario
from benchmarks.chaos.rounds import KILLED, TERMINATED, Round
from benchmarks.chaos.scenarios.firsts import postgresql_missing
from benchmarks.chaos.scenarios.kills import TRAINING, training
from benchmarks.chaos.scenarios.sweeps import STUDY
from benchmarks.chaos.servers import PostgreSQL

FAILED, REFUSED = 1, 2


def ended_and_resumed(here: Round, number: int) -> None:
    """SIGKILL or SIGTERM, resume; then a wrong password, a study that names the address, and no server."""
    server = PostgreSQL(here)
    process = here.start("train", TRAINING)
    here.at_epoch(process, here.random.randrange(40))
    process.send(signal.SIGTERM if number % 2 else signal.SIGKILL)
    here.ends(process, {TERMINATED if number % 2 else KILLED})
    here.ends(here.go_on(TRAINING), {0})
    _refusals(here, server)


def _refusals(here: Round, server: PostgreSQL) -> None:
    wrong = {"MLFLOW_TRACKING_URI": server.address(f"{files.MARK}, but wrong")}
    for process in [
        here.start("train", TRAINING, **wrong),
        here.start("train", {"resume": "latest"}, **wrong),
        here.start("tune", {**STUDY, "storage": server.address(f"{files.MARK}, but wrong")}),
    ]:
        here.ends(process, {FAILED, REFUSED})


SCENARIOS = [
    Scenario(
        "password",
        "PostgreSQL with a password in its address: SIGKILL or SIGTERM, then resumed; then with wrong passwords",
        ended_and_resumed,
        training,
        rounds=2,
        seconds=40,
        missing=postgresql_missing,
    ),
]
