"""Everything works the same against a tracking server."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import requests
from moments import KILL, TERM, AtCall, During
from stores import Finished, Store, used
from support import environment_of_tests, run, tiny, words

from nfa import tracking

pytestmark = pytest.mark.slow


@pytest.fixture
def server(fresh: Store) -> Iterator[str]:
    """Address of an MLflow server on a copy of the empty store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--backend-store-uri", fresh.uri, "--artifacts-destination", str(fresh.folder / "served")]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *place]
    env = {**environment_of_tests(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(command, cwd=fresh.folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None
        try:
            if requests.get(f"{address}/health", timeout=1).ok:
                return
        except requests.RequestException:
            time.sleep(0.1)
    raise AssertionError("the server never answered")


def experiment(fresh: Store, address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An experiment whose artifacts the server keeps."""
    with used(fresh, monkeypatch):
        mlflow.set_tracking_uri(address)
        return str(mlflow.MlflowClient().create_experiment("served"))


def test_training_ended_and_resumed_on_a_server_is_the_same_run(
    server: str, fresh: Store, finished: Finished, calls: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = {"MLFLOW_TRACKING_URI": server, "MLFLOW_EXPERIMENT_ID": experiment(fresh, server, monkeypatch)}
    ended = run(fresh, tiny(), before=AtCall(calls // 2, TERM), **place)
    assert ended.code == 143, ended.output
    (run_id,) = fresh.runs()
    assert fresh.tags(run_id)["nfa.state"] == "killed"
    ended = run(fresh, words(resume=run_id), pictures=True, **place)
    assert ended.code == 0, ended.output
    assert f"{server}/#/experiments/" in ended.output
    assert fresh.metrics(run_id) == finished.store.metrics(finished.run_id)
    with used(fresh, monkeypatch):
        mlflow.set_tracking_uri(server)
        monkeypatch.chdir(tmp_path)
        expected = finished.store.checkpoints(finished.run_id)["epoch_0004.safetensors"]
        state = tracking.load_checkpoint(run_id[:8], 4).model.state_dict()
    assert all(state[name].equal(tensor) for name, tensor in expected.items())
    assert os.path.getsize(next((fresh.folder / "served").rglob("training_analysis.png"))) > 10_000


def test_nothing_that_was_brought_from_or_to_a_server_stays(
    server: str, fresh: Store, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    place = {"MLFLOW_TRACKING_URI": server, "MLFLOW_EXPERIMENT_ID": experiment(fresh, server, monkeypatch)}
    place["TMPDIR"] = str(temporary)
    for entrypoint, argv in {
        "train": tiny(),
        "analyze": words(max_samples=20, output_dir=fresh.folder / "out"),
        "gradient_directions": words(n=12),
    }.items():
        ended = run(fresh, argv, entrypoint=entrypoint, pictures=entrypoint == "gradient_directions", **place)
        assert ended.code == 0, ended.output
        assert list(temporary.iterdir()) == []
    stop = During("nfa.tracking.metrics", "MetricLog.flush", KILL, 2)
    ended = run(fresh, words(max_samples=21), entrypoint="analyze", before=stop, **place)
    assert ended.code == -signal.SIGKILL
    assert list(temporary.iterdir()) != []
    assert run(fresh, words(max_samples=21), entrypoint="analyze", **place).code == 0
    assert list(temporary.iterdir()) == []
