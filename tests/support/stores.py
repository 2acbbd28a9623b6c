"""Tracking stores as tests look into them, and the runs in them."""

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

Made = TypeVar("Made")


@dataclass(frozen=True)
class Store:
    """A folder with an SQLite tracking store and its artifacts, as MLflow's defaults have it."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.database}"

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Answer of the database itself."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query, values).fetchall()

    def change(self, query: str, *values: Any) -> None:
        self._change([(query, *values)])

    def _change(self, queries: Sequence[tuple[Any, ...]]) -> None:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute("PRAGMA synchronous = OFF")
            for query, *values in queries:
                connection.execute(query, values)

    def copy(self, folder: Path) -> "Store":
        """The same store at another place, artifact addresses included."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        moved = Store(folder)
        addresses = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location"}
        moved._change(
            [
                (f"UPDATE {table} SET {column} = replace({column}, ?, ?)", str(self.folder), str(folder))
                for table, column in addresses.items()
            ]
        )
        return moved

    def runs(self) -> list[str]:
        """Ids of all runs, oldest first."""
        return [run_id for (run_id,) in self.rows("SELECT run_uuid FROM runs ORDER BY start_time, rowid")]

    def named(self) -> dict[str, str]:
        """Run ids by run name."""
        return {name: run_id for run_id, name in self.rows("SELECT run_uuid, name FROM runs")}

    def status(self, run_id: str) -> str:
        return str(self.rows("SELECT status FROM runs WHERE run_uuid = ?", run_id)[0][0])

    def tags(self, run_id: str) -> dict[str, str]:
        return dict(self.rows("SELECT key, value FROM tags WHERE run_uuid = ?", run_id))

    def params(self, run_id: str) -> dict[str, str]:
        """All but the claims of processes on the run."""
        return {key: value for key, value in self._params(run_id).items() if not key.startswith("nfa.claim.")}

    def claims(self, run_id: str) -> dict[str, str]:
        """What processes have signed that have worked on the run."""
        return {key: value for key, value in self._params(run_id).items() if key.startswith("nfa.claim.")}

    def _params(self, run_id: str) -> dict[str, str]:
        return dict(self.rows("SELECT key, value FROM params WHERE run_uuid = ?", run_id))

    def metrics(self, run_id: str) -> list[tuple[str, int, float]]:
        """Every row (key, step, value), duplicates included, but the time that a training took."""
        analysed = "SELECT run_uuid FROM tags WHERE key = 'nfa.analysis_digest'"
        asked = f"run_uuid = ? AND (key != 'nfa/seconds' OR run_uuid IN ({analysed}))"
        query = f"SELECT key, step, value FROM metrics WHERE {asked} ORDER BY key, step, value"
        return [(key, step, value) for key, step, value in self.rows(query, run_id)]

    def seconds(self, run_id: str) -> dict[int, float]:
        """The time that a training took, by step."""
        return dict(self.rows("SELECT step, value FROM metrics WHERE run_uuid = ? AND key = 'nfa/seconds'", run_id))

    def artifact(self, run_id: str, path: str = "") -> Path:
        address = self.rows("SELECT artifact_uri FROM runs WHERE run_uuid = ?", run_id)[0][0]
        return Path(address.removeprefix("file://"), path)

    def json(self, run_id: str, path: str) -> Any:
        """A JSON artifact without its digest, read strictly: NaN and infinity are errors."""
        text = self.artifact(run_id, path).read_text(encoding="utf-8")
        found = json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
        assert len(found.pop("digest")) == 64
        return found

    def write_json(self, run_id: str, path: str, content: Mapping[str, Any]) -> None:
        """Another content of a JSON artifact, as if it had been written by the run."""
        from nfa import content as files

        self.artifact(run_id, path).write_text(files.json_text(content), encoding="utf-8")

    def change_tensors(self, run_id: str, path: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Other tensors in a safetensors artifact, as if they had been written by the run."""
        from nfa import content as files

        file = self.artifact(run_id, path)
        tensors, metadata = files.read_tensors(file).content
        change(tensors)
        file.unlink()  # the tensors are read from it
        files.write_tensors(file, tensors, metadata)

    def checkpoints(self, run_id: str) -> dict[str, dict[str, Any]]:
        from safetensors.torch import load_file

        files = sorted(self.artifact(run_id, "checkpoints").glob("*.safetensors"))
        return {file.name: load_file(file) for file in files}

    def checkpoint_metadata(self, run_id: str, epoch: int) -> dict[str, str]:
        from safetensors import safe_open

        with safe_open(self.artifact(run_id, f"checkpoints/epoch_{epoch:04d}.safetensors"), "pt") as file:
            return dict(file.metadata())


@contextmanager
def used(store: Store, monkeypatch: Any) -> Iterator[Store]:
    """This process uses `store`, from its folder, and is no part of an `mlflow run`."""
    import mlflow

    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "NFA_CALLER_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(store.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    mlflow.set_tracking_uri(store.uri)
    yield store
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # which forgets it


def write_without_sync() -> None:
    """SQLite does not wait for the disk: a killed process loses nothing by it, a machine without power would."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "connect")
    def _no_waiting(connection: Any, _record: Any) -> None:
        if type(connection).__module__ == "sqlite3":
            connection.execute("PRAGMA synchronous = OFF")


class Once(Protocol):
    """What `make` returns for a new folder, made once in a session for each name."""

    def __call__(self, name: str, make: Callable[[Path], Made]) -> Made: ...


def wrapper_in(store: Store) -> str:
    """A run as `mlflow run` makes it before it starts an entry point."""
    import pytest
    from mlflow import MlflowClient

    with pytest.MonkeyPatch.context() as monkeypatch, used(store, monkeypatch):
        return str(MlflowClient().create_run("0", tags={"mlflow.project.entryPoint": "train"}).info.run_id)


@dataclass(frozen=True)
class Finished:
    """A finished run and its store."""

    store: Store
    run_id: str


@dataclass(frozen=True)
class Family:
    """The parent that `optimizer=all` makes, its children by optimizer, and their store."""

    store: Store
    parent: str
    children: dict[str, str]


def family_in(store: Store) -> Family:
    """The only family of a store, its children in the order in which they started."""
    parents = {run_id: store.tags(run_id).get("mlflow.parentRunId") for run_id in store.runs()}
    (parent,) = (run_id for run_id, above in parents.items() if above is None)
    children = [run_id for run_id, above in parents.items() if above == parent]
    return Family(store, parent, {store.tags(run_id)["nfa.variant"]: run_id for run_id in children})


def same_weights(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Bitwise equality of all checkpoints of two runs."""
    return one.keys() == other.keys() and all(
        one[name].keys() == other[name].keys()
        and all(tensor.numpy().tobytes() == other[name][key].numpy().tobytes() for key, tensor in one[name].items())
        for name in one
    )


def assert_same_run(store: Store, run_id: str, expected: Finished) -> None:
    """The run has bitwise the weights and exactly the metric rows of an uninterrupted one."""
    assert same_weights(store.checkpoints(run_id), expected.store.checkpoints(expected.run_id))
    rows = store.metrics(run_id)
    assert [row for row, count in Counter(row[:2] for row in rows).items() if count > 1] == []
    assert rows == expected.store.metrics(expected.run_id)
    attached = "SELECT metric_name, metric_step, metric_value FROM logged_model_metrics ORDER BY 1, 2, 3"
    assert store.rows(attached) == expected.store.rows(attached)
    assert store.rows("SELECT count(*) FROM logged_models") == expected.store.rows("SELECT count(*) FROM logged_models")
    assert store.json(run_id, "results.json") == expected.store.json(expected.run_id, "results.json")
    assert store.tags(run_id)["nfa.state"] == "finished"
    assert store.status(run_id) == "FINISHED"
