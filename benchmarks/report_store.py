"""A store of many runs, written straight into MLflow's SQLite tables: 1,000 runs × 100 keys × 100 steps in a minute.

python -m benchmarks.report_store FOLDER makes 5 optimizers × 200 seeds; with --apart every run has a learning rate of
its own. The runs have no files.
"""

import argparse
import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np

RUNS, STEPS = 1000, 100
OPTIMIZERS = ("sgd", "adam", "muon", "adamw", "rmsprop")
LAYERS, RELATIONS = 5, ("agop_nfm", "g_vs_h", "h_vs_m")
ENDS = ("", "_se", "_chance", "_chance_sd", "_shared", "_shared_sd")
KEYS = (
    *(f"{split}/{name}" for split in ("train", "val") for name in ("loss", "accuracy")),
    "flow/grad_norm",
    *(f"flow/layer_{layer}/update_ratio" for layer in range(LAYERS)),
    *(f"layer_{layer}/{name}{end}" for layer in range(LAYERS) for name in RELATIONS for end in ENDS),
)
BEGIN, SECOND = 1_700_000_000_000, 1000  # ms
INDICES = {
    "index_metrics_run_uuid": "metrics (run_uuid)",
    "index_metrics_run_uuid_key_step": 'metrics (run_uuid, "key", step)',
}
TAGS = {
    "nfa.entrypoint": "train",
    "nfa.workload": "mlp",
    "nfa.state": "finished",
    "nfa.trained": "true",
    "nfa.version": "0.7.0",
    "nfa.coverage": "watching 16,384 of 17,024 weights (96 %); not chosen: 'layers.5'",
    "mlflow.source.git.commit": "0123456789abcdef0123456789abcdef01234567",
    "mlflow.user": "benchmark",
}


def make(folder: Path, *, runs: int = RUNS, apart: bool = False) -> str:
    """Make the store in an empty folder; return its address."""
    address = f"sqlite:///{folder}/mlflow.db"
    client = mlflow.MlflowClient(address)
    client.create_experiment("unused")  # MLflow makes its tables
    ids = [hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest() for number in range(runs)]
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        for index in INDICES:
            connection.execute(f"DROP INDEX IF EXISTS {index}")
        _describe(connection, folder, ids, apart=apart)
        for place, key in enumerate(KEYS):
            _write_series(connection, ids, place, key)
        for index, columns in INDICES.items():
            connection.execute(f"CREATE INDEX {index} ON {columns}")
        connection.execute("ANALYZE")
    return address


def _describe(connection: sqlite3.Connection, folder: Path, ids: list[str], *, apart: bool) -> None:
    """Write the runs with their parameters and tags."""
    columns = "run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri"
    for number, run_id in enumerate(ids):
        start = BEGIN + number * SECOND
        name = f"digits mlp 64×5, run {number}"
        row = (
            run_id,
            name,
            "LOCAL",
            "benchmark",
            "FINISHED",
            start,
            start + 60 * SECOND,
            "active",
            f"{folder}/{run_id}",
            0,
        )
        connection.execute(f"INSERT INTO runs ({columns}, experiment_id) VALUES ({', '.join('?' * len(row))})", row)
        for table, values in (("params", _parameters(number, apart)), ("tags", {**TAGS, "mlflow.runName": name})):
            rows = [(key, value, run_id) for key, value in values.items()]
            connection.executemany(f"INSERT INTO {table} (key, value, run_uuid) VALUES (?, ?, ?)", rows)


def _parameters(number: int, apart: bool) -> dict[str, str]:
    rate = f"{10 ** (-4 + 3 * number / RUNS):.9g}" if apart else "0.01"
    varied = {"optimizer": OPTIMIZERS[0 if apart else number % len(OPTIMIZERS)], "lr": rate}
    fixed = {"width": "64", "depth": "5", "loss": "cross-entropy", "epochs": str(STEPS - 1), "batch_size": "128"}
    return {**varied, **fixed, "dataset": "digits", "seed": str(number // len(OPTIMIZERS))}


def _write_series(connection: sqlite3.Connection, ids: list[str], place: int, key: str) -> None:
    draw = np.random.default_rng(place)
    size = draw.random((len(ids), 1)) * np.exp(-np.arange(STEPS) / 30) + 0.02 * draw.random((len(ids), STEPS))
    last = [
        (key, float(of[-1]), BEGIN + STEPS * SECOND, STEPS - 1, 0, run_id) for run_id, of in zip(ids, size, strict=True)
    ]
    into = "(key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)"
    connection.executemany(f"INSERT INTO metrics {into}", _rows(ids, key, size.tolist()))
    connection.executemany(f"INSERT INTO latest_metrics {into}", last)


def _rows(ids: list[str], key: str, values: list[list[float]]) -> Iterator[tuple[str, float, int, int, int, str]]:
    """Yield the rows of a key in the order of the table's own index, which is quick to write."""
    for step in range(STEPS):
        for run_id, of in sorted(zip(ids, values, strict=True)):
            yield key, of[step], BEGIN + (step + 1) * SECOND, step, 0, run_id


def main() -> None:
    """Make a store in the folder that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--apart", action="store_true", help="a learning rate for each run, instead of seeds")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True)
    print(make(asked.folder.resolve(), runs=asked.runs, apart=asked.apart))


if __name__ == "__main__":
    main()
