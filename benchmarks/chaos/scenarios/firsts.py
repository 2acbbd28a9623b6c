"""First trainings in a store that nothing has used yet."""

from benchmarks.chaos.campaign import Scenario
from benchmarks.chaos.rounds import Round
from benchmarks.chaos.scenarios.kills import TRAINING, training
from benchmarks.chaos.servers import PostgreSQL, program


def two_at_once(here: Round, _number: int) -> None:
    """Two trainings at the same moment, where no table is made yet."""
    for process in [here.start("train", TRAINING), here.start("train", TRAINING)]:
        here.ends(process, {0})


def two_at_once_on_postgresql(here: Round, number: int) -> None:
    """The same, on an empty database of PostgreSQL."""
    PostgreSQL(here)
    two_at_once(here, number)


def postgresql_missing() -> str:
    """Why there cannot be a database of PostgreSQL."""
    return "" if program("initdb") and program("pg_ctl") else "needs PostgreSQL"


SCENARIOS = [
    Scenario(
        "first, twice",
        "two first trainings are started in an empty folder at the same moment (SQLite)",
        two_at_once,
        training,
        rounds=3,
        seconds=20,
    ),
    Scenario(
        "first, twice, PostgreSQL",
        "two first trainings are started on an empty PostgreSQL database at the same moment",
        two_at_once_on_postgresql,
        training,
        rounds=2,
        seconds=25,
        missing=postgresql_missing,
    ),
]
