"""Small studies that tests of `tune` make."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tests.support.processes import Ended, run, words
from tests.support.stores import Store

NAME = "s"
FIXED = "epochs=4,width=8,depth=2,schedule=0-2,4,batch_size=64"
SPACE = "lr=log:1e-4:1,optimizer=sgd|adam"
OPTIONS: dict[str, Any] = {
    "study_name": NAME,
    "fixed": FIXED,
    "space": SPACE,
    "n_trials": 8,
    "confirm": 0,
    "pruner": "none",
}


@dataclass(frozen=True)
class Study:
    """A study in a store: its tracked run, and the runs of its trials as "trial 0", "trial 1", …."""

    store: Store

    @property
    def parent(self) -> str:
        (found,) = (
            run_id
            for run_id in self.store.runs()
            if self.store.tags(run_id).get("nfa.entrypoint") == "tune"
            and "mlflow.parentRunId" not in self.store.tags(run_id)
        )
        return found

    def below(self, run_id: str) -> dict[str, str]:
        named = self.store.rows("SELECT run_uuid, name FROM runs ORDER BY start_time, rowid")
        return {name: child for child, name in named if self.store.tags(child).get("mlflow.parentRunId") == run_id}

    @property
    def trials(self) -> dict[str, str]:
        below = self.below(self.parent)
        return {name.partition(":")[0]: run_id for name, run_id in below.items() if name.startswith("trial")}

    def state(self, name: str) -> tuple[str, str]:
        run_id = self.trials[name]
        return self.store.status(run_id), self.store.tags(run_id)["nfa.state"]

    def series(self, run_id: str, key: str) -> dict[int, float]:
        rows = [(step, value) for name, step, value in self.store.metrics(run_id) if name == key]
        assert len(rows) == len({step for step, _ in rows}), f"{key} of {run_id} has a step twice"
        return dict(rows)

    def optuna(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Answer of the study's own database."""
        with closing(sqlite3.connect(self.store.folder / "optuna.db")) as connection:
            return connection.execute(query, values).fetchall()

    def rows(self, name: str = NAME) -> list[tuple[int, str, int, str | None]]:
        """Number, state, slot and run of each trial in the database."""
        found = self.optuna(
            "SELECT number, state, "
            "(SELECT value_json FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = 'slot'), "
            "(SELECT value_json FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = 'run_id') "
            "FROM trials t JOIN studies s ON s.study_id = t.study_id WHERE study_name = ? ORDER BY number",
            name,
        )
        return [(number, state, int(slot), run and json.loads(run)) for number, state, slot, run in found]

    def values(self) -> dict[int, float]:
        """Objectives by number."""
        query = (
            "SELECT t.number, v.value FROM trials t JOIN trial_values v USING (trial_id) "
            "JOIN studies s ON s.study_id = t.study_id WHERE study_name = ? AND v.objective = 0"
        )
        return dict(self.optuna(query, NAME))


def tuned(store: Store, options: Mapping[str, Any] = {}, **more: Any) -> Ended:
    """`tune` with few tiny trials, changed where given."""
    return run(store, words(**{**OPTIONS, **options}), entrypoint="tune", **more)
