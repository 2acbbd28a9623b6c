"""Reading the series of finished runs, from the tables of a database and through a server, against key by key."""

import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import mlflow
import requests

from benchmarks.record import in_turn, ratio, store
from nfa.registry import tracking

SITES, RELATIONS, STEPS = 60, 21, 13  # 1,260 keys, as a training of 60 sites logs them
RUNS, KEYS = 20, 100
ROUNDS = 3


def trained(keys: Sequence[str]) -> str:
    """The id of a finished run with random values of these keys."""
    run, draw = tracking.open_run("train", "mlp"), random.Random(0)
    with run:
        for step in range(STEPS):
            run.metrics.log({key: draw.random() for key in keys}, step)
    return run.run_id


def key_by_key(run_ids: Sequence[str]) -> dict[str, dict[str, dict[int, float]]]:
    """The same series, one request for each of them."""
    found = {}
    for run_id in run_ids:
        keys = mlflow.MlflowClient().get_run(run_id).data.metrics
        found[run_id] = {key: {row.step: row.value for row in tracking.metric_rows(run_id, key)} for key in keys}
    return found


def timed(run_ids: Sequence[str]) -> tuple[float, float, float]:
    """Seconds of reading at once and key by key, and their ratio; both have to give the same."""
    assert tracking.histories(run_ids) == key_by_key(run_ids)
    ways = {"at once": lambda: tracking.histories(run_ids), "key by key": lambda: key_by_key(run_ids)}
    seconds = in_turn(ways, rounds=ROUNDS, warm_up=False)
    return (
        median(seconds["at once"]),
        median(seconds["key by key"]),
        ratio(seconds["key by key"], seconds["at once"]),
    )


@contextmanager
def serving(database: str, folder: Path) -> Iterator[str]:
    """The address of an MLflow server on this machine with one worker."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--backend-store-uri", database, "--artifacts-destination", str(folder / "served")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen([*command, *place], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        while not _answers(address):
            assert process.poll() is None, "the server has ended"
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/health", timeout=1).ok
    except requests.RequestException:
        return False


def measured(place: str) -> dict[str, float]:
    """The rows of the record that are about the current store."""
    one = [trained([f"site_{site}/relation_{relation}" for site in range(SITES) for relation in range(RELATIONS)])]
    many = [trained([f"site_{site}/agop_nfm" for site in range(KEYS)]) for _ in range(RUNS)]
    found = {}
    for what, run_ids in {f"a run of {SITES * RELATIONS:,} keys": one, f"{RUNS} runs of {KEYS} keys": many}.items():
        at_once, slowly, times = timed(run_ids)
        found[f"{place}: {what}, s"] = round(at_once, 3)
        found[f"{place}: {what}, key by key, s"] = round(slowly, 2)
        found[f"{place}: {what}, key by key / at once"] = round(times, 1)
    return found


def main() -> None:
    """Measure both stores and record."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.chdir(folder)
        database = f"sqlite:///{folder}/mlflow.db"
        mlflow.set_tracking_uri(database)
        results = measured("SQLite")
        with serving(database, folder) as address:
            mlflow.set_tracking_uri(address)
            os.environ["MLFLOW_EXPERIMENT_ID"] = str(mlflow.MlflowClient().create_experiment("served"))
            results |= measured("a server")
    notes = [
        f"Finished runs with {STEPS} steps of each key, read by `nfa.registry.tracking.histories` and, in the same "
        f"process, with a request for each key; medians of {ROUNDS} rounds in turn, ratios within a round. Both give "
        "the same values.",
        "From a database, one or several runs take two queries. Through a server, each run takes three requests: for "
        "its last values, for the list of its files, and for its file `series.npz`.",
        "The server has one worker, an SQLite database, and the same machine.",
    ]
    store("reading", "Reading metric series", results, notes)


if __name__ == "__main__":
    main()
