"""A tracking store as its database has it, whatever MLflow says of it."""

import sqlite3
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from benchmarks.chaos.files import is_leak

RUNS = """SELECT runs.run_uuid, runs.name, runs.status, runs.artifact_uri, tags.value FROM runs
LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'nfa.state' ORDER BY runs.start_time, runs.run_uuid"""
TWICE = "SELECT key, step FROM metrics GROUP BY run_uuid, key, step HAVING count(*) > 1 ORDER BY key, step"
MODELS_TWICE = "SELECT name FROM logged_models GROUP BY source_run_id, name HAVING count(*) > 1 ORDER BY name"
SERIES = "SELECT key, step, value FROM metrics WHERE run_uuid = :run ORDER BY key, step, value"


@dataclass(frozen=True)
class StoredRun:
    """A row of the table of runs."""

    run_id: str
    name: str
    status: str
    artifact_uri: str
    state: str | None

    @property
    def finished(self) -> bool:
        """Whether its training came to its end."""
        return self.state == "finished"

    @property
    def at_work(self) -> bool:
        """Whether it says that a process is at it."""
        return self.state == "running" or self.status == "RUNNING"


@dataclass(frozen=True)
class Database:
    """The one at `place`: SQLite's file, which is not made by looking, or an address of SQLAlchemy's."""

    place: Path | str

    @cached_property
    def _engine(self) -> Engine:
        if isinstance(self.place, str):
            return create_engine(self.place, poolclass=NullPool)
        uri = f"file:{quote(str(self.place))}?mode=rw"
        return create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=NullPool)

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        """Its answer to a query."""
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query), values)]

    def runs(self) -> list[StoredRun]:
        """Oldest first; none where the tables have not all been made."""
        tables = set(inspect(self._engine).get_table_names())
        return [StoredRun(*row) for row in self.rows(RUNS)] if {"runs", "tags"} <= tables else []

    def twice(self) -> list[str]:
        """Key and step of metrics that a run has more than once, and checkpoints that are twice among the models."""
        models = [f"model {name}" for (name,) in self.rows(MODELS_TWICE)]
        return [*(f"{key} at {step}" for key, step in self.rows(TWICE)), *models]

    def series(self, run_id: str) -> list[tuple[Any, ...]]:
        """Key, step and value of every metric row; how long something took is another one's."""
        return [row for row in self.rows(SERIES, run=run_id) if "seconds" not in row[0]]

    def leaks(self) -> list[str]:
        """Tables with the marked password in them."""
        tables = inspect(self._engine).get_table_names()
        return [
            f"table {name}"
            for name in tables
            if any(is_leak(repr(row).encode()) for row in self.rows(f'SELECT * FROM "{name}"'))
        ]
