"""Everything works the same against a tracking server."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest

from nfa.errors import Refusal
from nfa.registry import stored_runs
from tests.support.claims import winners
from tests.support.fault_injection import KILL, TERM, AtCall, During
from tests.support.mlflow_servers import Server, serving
from tests.support.processes import launch, run, words
from tests.support.stores import Finished, Store, used
from tests.support.tiny_runs import tiny

pytestmark = pytest.mark.slow


@pytest.fixture
def server(fresh: Store) -> Iterator[Server]:
    """A server on a copy of the empty store."""
    with serving(fresh) as started:
        yield started


@pytest.fixture
def place(server: Server, fresh: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What leads a process to the server, to an experiment whose artifacts it keeps, and to a cache of its own."""
    with used(fresh, monkeypatch):
        mlflow.set_tracking_uri(server.address)
        experiment = str(mlflow.MlflowClient().create_experiment("served"))
    folders = {"NFA_CACHE": str(tmp_path / "cache")}
    return {"MLFLOW_TRACKING_URI": server.address, "MLFLOW_EXPERIMENT_ID": experiment, **folders}


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1] + b"?")


def test_training_ended_and_resumed_on_a_server_is_the_same_run(
    server: Server,
    place: dict[str, str],
    fresh: Store,
    finished: Finished,
    calls: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    ended = run(fresh, tiny(), before=AtCall(calls // 2, TERM), **place)
    assert ended.code == 143, ended.output
    (run_id,) = fresh.runs()
    assert fresh.tags(run_id)["nfa.state"] == "killed"
    ended = run(fresh, words(resume=run_id), pictures=True, **place)
    assert ended.code == 0, ended.output
    assert f"{server.address}/#/experiments/" in ended.output
    assert fresh.metrics(run_id) == finished.store.metrics(finished.run_id)
    with used(fresh, monkeypatch):
        mlflow.set_tracking_uri(server.address)
        monkeypatch.chdir(tmp_path)
        expected = finished.store.checkpoints(finished.run_id)["epoch_0004.safetensors"]
        state = stored_runs.load_checkpoint(run_id[:8], 4).model.state_dict()
        damage(next((fresh.folder / "served").rglob("epoch_0004.safetensors")))
        with pytest.raises(Refusal, match=f"epoch_0004.safetensors of run {run_id[:12]} .damaged"):
            stored_runs.load_checkpoint(run_id, 4)
        next((fresh.folder / "served").rglob("example_ids.json")).unlink()
        with pytest.raises(Refusal, match=f"example_ids.json of run {run_id[:12]} .No such file"):
            stored_runs.load_workload(run_id)
    assert all(state[name].equal(tensor) for name, tensor in expected.items())
    assert os.path.getsize(next((fresh.folder / "served").rglob("training_analysis.png"))) > 10_000


@dataclass(frozen=True)
class Stop:
    """Stops a server's processes, and asks this one to end."""

    pid: int

    def __call__(self) -> None:
        os.killpg(self.pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    "during", [("nfa.registry.training.optimizers", "Optimizers.step"), ("nfa.content", "write_tensors")]
)
def test_training_stopped_while_the_server_hangs_keeps_its_state_here_and_goes_on_once_that_answers(
    during: tuple[str, str], server: Server, place: dict[str, str], fresh: Store, finished: Finished
) -> None:
    number = 18 * 2 + 7 if during[1] == "Optimizers.step" else 3
    child = launch(fresh, tiny(), before=During(*during, Stop(server.pid), number), **place)
    ended = child.end(60)
    assert ended.code == 130, ended.output
    assert "Traceback" not in ended.output
    (run_id,) = fresh.runs()
    kept = Path(place["NFA_CACHE"], "unsent", run_id, "latest.pt")
    assert f"the next resume on this machine uses {kept}" in ended.output
    assert f"continue with resume={run_id}" in ended.output
    server.send(signal.SIGCONT)
    ended = run(fresh, words(resume=run_id), **place)
    assert ended.code == 0, ended.output
    assert f"from {kept}, because the server had not accepted it" in ended.output
    assert fresh.metrics(run_id) == finished.store.metrics(finished.run_id)
    assert not kept.parent.exists()


def test_training_waits_for_a_server_that_hangs_for_a_while(
    server: Server, place: dict[str, str], fresh: Store, finished: Finished
) -> None:
    child = launch(fresh, tiny(), **place)
    child.wait_for("epoch 1 ")
    server.send(signal.SIGSTOP)
    time.sleep(7)
    server.send(signal.SIGCONT)
    assert child.end().code == 0, child.output
    (run_id,) = fresh.runs()
    assert fresh.metrics(run_id) == finished.store.metrics(finished.run_id)


def test_nothing_that_was_brought_from_or_to_a_server_stays(
    place: dict[str, str], fresh: Store, temporary: Path
) -> None:
    place["TMPDIR"] = str(temporary)
    for entrypoint, argv in {
        "train": tiny(),
        "analyze": words(max_samples=20, output_dir=fresh.folder / "out"),
        "gradient_directions": words(n=12),
    }.items():
        ended = run(fresh, argv, entrypoint=entrypoint, pictures=entrypoint == "gradient_directions", **place)
        assert ended.code == 0, ended.output
        assert list(temporary.iterdir()) == []
    stop = During("nfa.registry.tracking.metrics", "MetricLog.flush", KILL, 2)
    ended = run(fresh, words(max_samples=21), entrypoint="analyze", before=stop, **place)
    assert ended.code == -signal.SIGKILL
    assert list(temporary.iterdir()) != []
    assert run(fresh, words(max_samples=21), entrypoint="analyze", **place).code == 0
    assert list(temporary.iterdir()) == []


def test_of_processes_that_claim_at_the_same_moment_one_wins(
    place: dict[str, str], fresh: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = place["MLFLOW_TRACKING_URI"]
    with used(fresh, monkeypatch):
        mlflow.set_tracking_uri(address)
        for _ in range(5):
            run_id = mlflow.MlflowClient().create_run(place["MLFLOW_EXPERIMENT_ID"]).info.run_id
            (text,) = winners(address, run_id)
            assert fresh.claims(run_id) == {"nfa.claim.0": text}
