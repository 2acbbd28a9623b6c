"""Of several processes that use a database for the first time one makes its tables, and the others wait for it."""

import fcntl
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url

from nfa.errors import Refusal
from nfa.registry import signals, tracking
from nfa.registry.signals import Interrupted, shielded
from nfa.registry.sweeps.storage import open_storage
from nfa.registry.tracking import calls, first_use, registry, runs
from nfa.registry.tracking import store as tracking_store
from tests.support.processes import launch
from tests.support.stores import Store
from tests.support.tiny_runs import tiny


class Waiting:
    """What is said about waiting, from the first moment on, and what is done then."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.begun = threading.Event()
        self.act: Callable[[], None] = self.begun.set

    def say(self, name: str, text: str) -> None:
        self.lines.append(f"{name} {text}")
        self.act()


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    heard = Waiting()
    monkeypatch.setattr(first_use, "MOMENT", 0)
    monkeypatch.setattr(first_use, "POLL", 0.001)
    monkeypatch.setattr(first_use, "stage", heard.say)
    return heard


@contextmanager
def another_makes_tables_in(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


def enter(address: str) -> None:
    with first_use.alone(address, first_use.MLFLOW):
        pass


def tables(file: Path) -> set[str]:
    with closing(sqlite3.connect(file)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def assert_waits_its_turn(use: Callable[[], object], address: str, waiting: Waiting) -> None:
    """`use` of a database, in a thread, begins where this one's ends."""
    order: list[str] = []
    thread = threading.Thread(target=lambda: (use(), order.append("second")))
    with first_use.alone(address, first_use.MLFLOW):
        thread.start()
        assert waiting.begun.wait(60)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert len(waiting.lines) == 1
    assert make_url(address).render_as_string() in waiting.lines[0]


@pytest.fixture
def make_client(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], MlflowClient]:
    def make(address: str) -> MlflowClient:
        monkeypatch.setattr("mlflow.get_tracking_uri", lambda: address)
        return tracking_store.client()

    return make


def test_mlflow_s_tables_are_made_by_one_at_a_time(
    tmp_path: Path, waiting: Waiting, make_client: Callable[[str], MlflowClient]
) -> None:
    address = f"sqlite:///{tmp_path}/new/mlflow.db"
    tmp_path.joinpath("new").mkdir()
    assert_waits_its_turn(lambda: make_client(address), address, waiting)
    assert "experiments" in tables(tmp_path / "new/mlflow.db")
    assert os.listdir(tmp_path / "new") == ["mlflow.db"]


def test_optuna_s_tables_are_made_by_one_at_a_time(tmp_path: Path, waiting: Waiting) -> None:
    address = f"sqlite:///{tmp_path}/optuna.db"
    assert_waits_its_turn(lambda: open_storage(make_url(address)), address, waiting)
    assert "trials" in tables(tmp_path / "optuna.db")
    assert os.listdir(tmp_path) == ["optuna.db"]


@pytest.fixture
def _listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(signals, "_signals", signals._Signals())
    signals.listen()
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.usefixtures("_listening")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_waiting_ends_with_a_signal_though_the_callers_hold_it_back(
    signum: int, tmp_path: Path, waiting: Waiting
) -> None:
    waiting.act = lambda: os.kill(os.getpid(), signum)
    with another_makes_tables_in(tmp_path), pytest.raises(Interrupted), shielded():
        enter(f"sqlite:///{tmp_path}/mlflow.db")


def test_who_finds_the_tables_made_does_not_wait(store: Store, waiting: Waiting) -> None:
    with another_makes_tables_in(store.folder), first_use.alone(store.uri, first_use.MLFLOW):
        assert waiting.lines == []


def test_who_makes_tables_has_the_time_of_a_training_s_calls(store: Store, tmp_path: Path) -> None:
    with calls.beginning():
        with first_use.alone(f"sqlite:///{tmp_path}/mlflow.db", first_use.MLFLOW):
            assert calls._limits.silence == calls.LIMIT
        with first_use.alone(store.uri, first_use.MLFLOW):
            assert calls._limits.silence == calls.BEGINNING


def test_a_database_holds_runs_or_studies_and_each_refuses_the_other_s(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"mlflow\.db, which holds a tracking store"):
        open_storage(make_url(store.uri))
    studies = f"sqlite:///{tmp_path}/optuna.db"
    open_storage(make_url(studies))
    with pytest.raises(Refusal, match=r"optuna\.db, which holds studies"), first_use.alone(studies, first_use.MLFLOW):
        pass


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "sqlite://", "databricks", "mysql://me@host/name"])
def test_other_stores_know_no_such_lock(address: str) -> None:
    with first_use.alone(address, first_use.MLFLOW), first_use.alone(address, first_use.MLFLOW):
        pass


def test_tables_that_a_killed_process_left_half_made_are_told_from_a_store_that_cannot_be_reached(
    tmp_path: Path, make_client: Callable[[str], MlflowClient]
) -> None:
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE metrics (key, value, timestamp, step)")  # of a later version, and no other
    with pytest.raises(Refusal, match=f"(?s){file}, whose tables are incomplete.*delete the file"):
        make_client(f"sqlite:///{file}")


def test_a_file_system_that_locks_no_folders_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with first_use.alone(f"sqlite:///{tmp_path}/mlflow.db", first_use.MLFLOW):
        pass


class Late(MlflowClient):
    """Sees nothing of what is there at its first look: another process makes it just then."""

    looked = False

    def get_experiment_by_name(self, name: str) -> object:
        looked, self.looked = self.looked, True
        return super().get_experiment_by_name(name) if looked else None

    def log_inputs(self, run_id: str, datasets: Any = None, models: Any = None) -> None:
        if not self.looked:
            self.looked = True
            raise MlflowException("UNIQUE constraint failed: datasets.experiment_id, datasets.name, datasets.digest")
        super().log_inputs(run_id, datasets, models)


@pytest.mark.usefixtures("store")
def test_an_experiment_that_two_make_at_the_same_time_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = MlflowClient().create_experiment("new")
    late = Late()
    monkeypatch.setattr(tracking_store, "client", lambda: late)
    assert tracking_store.experiment_named("new") == experiment


@pytest.mark.usefixtures("store")
def test_an_experiment_that_cannot_be_made_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Late()
    monkeypatch.setattr(tracking_store, "client", lambda: late)
    with pytest.raises(MlflowException, match="maximum length"):
        tracking_store.experiment_named(" " * 600)


@pytest.mark.usefixtures("store")
def test_data_that_two_runs_name_at_the_same_time_are_inputs_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    with tracking.open_run("train", "mlp") as run:
        late = Late()
        with monkeypatch.context() as patch:
            patch.setattr(runs, "client", lambda: late)
            run.log_datasets([tracking.DataInput("digits", "d1", "published", "train")])
    (found,) = MlflowClient().get_run(run.run_id).inputs.dataset_inputs
    assert found.dataset.name == "digits"


@pytest.mark.usefixtures("store")
def test_a_registered_model_that_is_there_is_used() -> None:
    MlflowClient().create_registered_model("known")
    assert registry._versions("known") == []
    with pytest.raises(MlflowException, match="Invalid"):
        registry._versions("a/b")


@pytest.mark.slow
def test_first_trainings_at_the_same_time_share_a_postgresql_database(tmp_path: Path, waiting: Waiting) -> None:
    from tests.support.postgresql import server

    store = Store(tmp_path / "typed")
    store.folder.mkdir()
    with server() as address:
        assert_waits_its_turn(lambda: enter(address), address, waiting)
        trainings = [launch(store, tiny(seed=seed), MLFLOW_TRACKING_URI=address) for seed in (1, 2, 3)]
        ended = [training.end() for training in trainings]
    assert [one.code for one in ended] == [0, 0, 0], "\n".join(one.output for one in ended)
    assert len(list(store.folder.glob("mlruns/0/*/artifacts/results.json"))) == 3
