"""Passwords of stores and of studies' databases reach no terminal, no store and no artifact."""

import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from nfa import masking
from nfa.registry import signals
from tests.support.fault_injection import During, Raise
from tests.support.processes import ROOT, Child, environment_of_tests, launch, run, words
from tests.support.stores import Store, used, wrapper_in
from tests.support.tiny_runs import tiny
from tests.support.tuning_runs import OPTIONS, tuned

ENTRY_POINTS = sorted(file.stem for file in (ROOT / "entrypoints").glob("[!_]*.py"))
RESUMED = ("ablate_eeg", "train", "train_eeg", "train_lora")  # others look into the store without being told to
WITHOUT_STORE = ("import_checkpoints", "prepare_eeg")  # they refuse what is missing before they need one
PART = "Geheim9"  # of every password here: no writing changes letters and digits
PASSWORD = f"p@s/s:w'ö\"{PART}"
ENCODED = urllib.parse.quote(PASSWORD, safe="")
TYPED = f"postgresql://user:{PASSWORD}@127.0.0.1:1/db"
CLOSED = {  # stores that cannot be reached
    "postgresql": f"postgresql+psycopg://user:{ENCODED}@127.0.0.1:1/db",
    "server": f"http://user:{PASSWORD}@127.0.0.1:1",
    "not encoded": TYPED,
    "query": f"postgresql://user@127.0.0.1:1/db?password={ENCODED}&sslpassword={PART}",
    "server, encoded": f"http://user:{ENCODED}@127.0.0.1:1",
    "no scheme": f"user:{PASSWORD}@127.0.0.1:1/db",
}
SECRETS = {"PGPASSWORD": f"é\\{PART}", "MLFLOW_TRACKING_PASSWORD": PART, "MLFLOW_TRACKING_TOKEN": f"token-{PART}"}
EPOCH = ("nfa.registry.training.tracked", "TrackedTraining._after")


@dataclass(frozen=True)
class TryOnce:
    """MLflow would ask for minutes whether a database is there."""

    def __call__(self) -> None:
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 1


@dataclass(frozen=True)
class FailStore:
    """What MLflow says where a server fails in the middle of a training."""

    text: str

    def __call__(self) -> None:
        from mlflow.exceptions import MlflowException

        raise MlflowException(self.text)


def assert_untold(folder: Path) -> None:
    """No byte of a password in the files of a folder: databases, artifacts, and what was printed."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    assert [file for file in files if PART.encode() in file.read_bytes()] == []


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_entry_point_refuses_a_store_that_cannot_be_reached_without_its_password(name: str, fresh: Store) -> None:
    argv = words(resume="abc") if name in RESUMED else []
    store = {"MLFLOW_TRACKING_URI": CLOSED["postgresql"]}
    ended = run(fresh, argv, entrypoint=name, before=TryOnce(), **store, **SECRETS)
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output
    assert ("127.0.0.1" in ended.output) == (name not in WITHOUT_STORE)
    assert_untold(fresh.folder)


@pytest.mark.parametrize("kind", [kind for kind in CLOSED if kind != "postgresql"])
def test_no_way_to_write_an_address_tells_its_password(kind: str, fresh: Store) -> None:
    ended = run(fresh, words(resume="abc"), before=TryOnce(), MLFLOW_TRACKING_URI=CLOSED[kind])
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output
    assert "user" in ended.output
    assert "127.0.0.1:1" in ended.output
    assert_untold(fresh.folder)


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_no_entry_point_repeats_a_password_that_was_typed(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, TYPED])
    monkeypatch.setattr(signals, "listen", lambda: None)
    monkeypatch.setattr(masking, "_typed", set())
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"entrypoints.{name}", run_name="__main__")
    said = "".join(capsys.readouterr())
    assert ended.value.code == 2
    assert "cannot use word 'postgresql://user:***@127.0.0.1:1/db'" in said
    assert PART not in said


@pytest.mark.parametrize("fault", [Raise, FailStore])
def test_an_error_in_the_middle_of_a_training_is_told_without_the_password_in_it(
    fault: type[Raise] | type[FailStore], fresh: Store
) -> None:
    act = During(*EPOCH, fault(f"lost {CLOSED['server']}"), 2)
    ended = run(fresh, tiny(), before=act, **SECRETS)
    assert ended.code == 1, ended.output
    (run_id,) = fresh.runs()
    for said in (ended.output, fresh.tags(run_id)["nfa.error"]):
        assert "lost http://user:***@127.0.0.1:1" in said
    assert_untold(fresh.folder)


def test_a_study_keeps_no_password_that_was_typed_in_its_run_its_trials_and_its_database(fresh: Store) -> None:
    typed = {"study_name": f"it's of {TYPED}", "run_name": f"{SECRETS['PGPASSWORD']} in '{TYPED}'", "n_trials": 1}
    ended = tuned(fresh, typed, **SECRETS)
    assert ended.code == 0, ended.output
    again = tuned(fresh, {**typed, "n_trials": 2, "space": "lr=0.1|0.2", "sampler": "grid"})
    assert again.code == 2, "it is the same study, which searches for something else"
    params = [fresh.params(run_id) for run_id in fresh.runs()]
    assert "it's of postgresql://user:***@127.0.0.1:1/db" in [one.get("study_name") for one in params]
    assert_untold(fresh.folder)


def test_a_password_of_a_database_that_cannot_be_reached_is_not_told(fresh: Store) -> None:
    ended = tuned(fresh, {"storage": TYPED})
    assert ended.code == 2, ended.output
    assert "storage=postgresql+psycopg://user:***" in ended.output
    assert_untold(fresh.folder)


# ---- under `mlflow run`


@pytest.mark.parametrize("argv", [["--storage", TYPED], [f"--space=lr=0.1|0.2,{TYPED}"]])
def test_a_password_that_mlflow_has_stored_is_refused_and_said(argv: list[str], fresh: Store) -> None:
    wrapper = wrapper_in(fresh)
    ended = run(fresh, argv, entrypoint="tune", MLFLOW_RUN_ID=wrapper)
    assert ended.code == 2, ended.output
    for said in (ended.output, fresh.tags(wrapper)["nfa.error"]):
        assert f"a password in {argv[0].partition('=')[0]}: MLflow has stored it in run {wrapper}" in said
        assert f"mlflow runs delete --run-id {wrapper}; mlflow gc --run-ids {wrapper}" in said
        assert "PGPASSWORD" in said
    assert fresh.status(wrapper) == "FAILED"
    assert_untold(fresh.folder)


@pytest.mark.slow
def test_the_commands_that_are_told_delete_a_stored_password_for_good(
    fresh: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = wrapper_in(fresh)
    with used(fresh, monkeypatch):
        import mlflow

        mlflow.MlflowClient().log_param(wrapper, "storage", TYPED)
    said = run(fresh, ["--storage", TYPED], entrypoint="tune", MLFLOW_RUN_ID=wrapper).output
    assert PART.encode() in fresh.database.read_bytes()
    store, commands = re.search(r"with MLFLOW_TRACKING_URI=(\S+): (.*); then run VACUUM", said).groups()  # type: ignore[union-attr]
    env = {**environment_of_tests(), "MLFLOW_TRACKING_URI": store}
    for command in commands.split("; "):
        mlflow_command = [str(Path(sys.executable).parent / "mlflow"), *shlex.split(command)[1:]]
        subprocess.run(mlflow_command, env=env, cwd="/", check=True, capture_output=True)
    fresh.change("VACUUM")
    assert fresh.runs() == []
    assert_untold(fresh.folder)


# ---- a real server


@pytest.mark.slow
def test_a_database_with_a_password_holds_runs_and_a_study_in_which_it_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.postgresql import server

    place = Store(tmp_path / "place")
    place.folder.mkdir()
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with server(PASSWORD) as address:
        without = re.sub(":[^:@]*@", "@", address)
        subprocess.run(["psql", without, "-c", "CREATE DATABASE studies"], check=True, capture_output=True)
        runs = {"MLFLOW_TRACKING_URI": address.replace("://", "+psycopg://")}
        for name, argv in (("train", tiny()), ("analyze", [])):
            ended = run(place, argv, entrypoint=name, pictures=True, **runs)
            assert ended.code == 0, ended.output
            assert "tester:***@127.0.0.1" in ended.output
        fixed = "epochs=60,width=8,depth=2,schedule=0-60/10,batch_size=16"
        studies = f"{address.removesuffix('postgres')}studies"
        options = {**OPTIONS, "storage": studies, "n_trials": 5, "n_workers": 2, "fixed": fixed}
        study = launch(place, words(**options), entrypoint="tune", pictures=True, **runs)
        study.wait_for("trial 0", 300)
        os.kill(_worker_of(study), signal.SIGKILL)
        ended = study.end(300)
        assert ended.code == 0, ended.output
        assert "it is replaced" in ended.output
        dumped = subprocess.run(["pg_dump", without], capture_output=True, text=True, check=True).stdout
        studied = subprocess.run(
            ["pg_dump", f"{without.removesuffix('postgres')}studies"], capture_output=True, text=True, check=True
        ).stdout
    assert "nfa.state" in dumped
    assert "COPY public.trial_user_attributes" in studied
    assert PART not in studied
    assert PART not in dumped
    assert list(place.folder.rglob("study.html"))
    assert_untold(place.folder)


def _worker_of(study: Child) -> int:
    """A process that takes trials."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for process in psutil.Process(study.pid).children():
            if "spawn_main" in " ".join(process.cmdline()):
                return int(process.pid)
        time.sleep(0.01)
    raise AssertionError("no worker was started")
