"""`mlflow run`: the literal command, from an environment that is not activated, without conda."""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from nfa.registry import tracking
from tests.support.fault_injection import KILL, TERM, AtCall, During
from tests.support.mlflow_projects import BIN, mlflow_run, unactivated
from tests.support.processes import ROOT, run, words
from tests.support.stores import Finished, Store, wrapper_in
from tests.support.tiny_runs import TINY, tiny


@dataclass
class Outcome:
    """How one `mlflow run` ended, and the store it was typed beside."""

    code: int
    output: str
    store: Store


@pytest.fixture(scope="module")
def outcomes(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Three commands, each beside its own store, at the same time: they cost two imports each, the refused one one."""
    folder = tmp_path_factory.mktemp("typed")
    stores = {name: empty_store.copy(folder / name) for name in ("good", "bad", "telling")}
    started = {
        "good": mlflow_run(stores["good"].folder, **TINY, run_name="a 'name'"),
        "bad": mlflow_run(stores["bad"].folder, foo=1),
        "telling": mlflow_run(stores["telling"].folder, run_name="of postgresql://me:geheim@host/runs"),
    }
    return {name: Outcome(*command.end(), stores[name]) for name, command in started.items()}


def only_run(outcome: Outcome) -> str:
    (run_id,) = outcome.store.runs()
    return run_id


def test_bare_command_works_without_conda_and_without_activation(outcomes: dict[str, Outcome]) -> None:
    good = outcomes["good"]
    assert good.code == 0, good.output
    assert "conda is not installed; using the active Python environment" in good.output
    assert good.store.status(only_run(good)) == "FINISHED"
    assert good.store.tags(only_run(good))["nfa.state"] == "finished"


def test_entry_point_ran_in_the_python_of_the_mlflow_that_was_typed(outcomes: dict[str, Outcome]) -> None:
    good = outcomes["good"]
    import torch

    # The environment on PATH is another one: it has no torch, so only ours could have trained.
    assert shutil.which("python", path=unactivated()["PATH"]) != str(BIN / "python")
    assert good.store.json(only_run(good), "config.json")["environment"]["torch"] == torch.__version__


def test_store_lands_in_the_folder_where_the_command_was_typed(outcomes: dict[str, Outcome]) -> None:
    good = outcomes["good"]
    assert good.store.artifact(only_run(good)).is_relative_to(good.store.folder / "mlruns")
    assert good.store.checkpoints(only_run(good))


def test_raw_params_are_kept_and_resolved_ones_added(outcomes: dict[str, Outcome]) -> None:
    good = outcomes["good"]
    params = good.store.params(only_run(good))
    assert params["lr"] == "auto"
    assert params["resolved.lr"] == "0.1"
    assert params["resolved.momentum"] == "0.0"
    assert params["epochs"] == "4"
    assert {name for name in params if name.startswith("resolved.")} == {"resolved.lr", "resolved.momentum"}


def test_training_under_mlflow_run_is_the_same_as_without(outcomes: dict[str, Outcome], finished: Finished) -> None:
    good = outcomes["good"]
    assert good.store.metrics(only_run(good)) == finished.store.metrics(finished.run_id)


def test_name_that_was_typed_is_the_run_s_name(outcomes: dict[str, Outcome]) -> None:
    good = outcomes["good"]
    assert good.store.tags(only_run(good))["mlflow.runName"] == "a 'name'"


def test_undeclared_parameter_fails_mlflow_and_its_run_says_why(outcomes: dict[str, Outcome]) -> None:
    assert_failed_run_says_why(outcomes["bad"], "parameter 'foo'", "see --help")


def assert_failed_run_says_why(bad: Outcome, *parts: str) -> None:
    assert bad.code == 1, bad.output
    assert bad.store.status(only_run(bad)) == "FAILED"
    tags = bad.store.tags(only_run(bad))
    assert tags["nfa.state"] == "failed"
    for part in ("allowed: ", *parts):
        assert part in tags["nfa.error"]
        assert part in bad.output
    assert bad.store.metrics(only_run(bad)) == []


def test_a_password_behind_p_is_refused_before_mlflow_stores_it(outcomes: dict[str, Outcome]) -> None:
    telling = outcomes["telling"]
    assert telling.code == 1, telling.output
    assert "a password in run_name, which MLflow would store" in telling.output
    assert "PGPASSWORD" in telling.output
    assert telling.store.runs() == []
    assert "geheim" not in telling.output
    assert [file for file in telling.store.folder.rglob("*.*") if b"geheim" in file.read_bytes()] == []


@pytest.mark.slow
def test_bad_value_fails_mlflow_and_its_run_says_why(empty_store: Store, tmp_path: Path) -> None:
    store = empty_store.copy(tmp_path / "store")
    ended = mlflow_run(store.folder, optimizer="sdg").end()
    assert_failed_run_says_why(Outcome(*ended, store), "optimizer='sdg'", "optimizer=sgd")


@pytest.fixture
def interrupted(fresh: Store, calls: int) -> Finished:
    """A run that was killed halfway."""
    run(fresh, tiny(), before=AtCall(calls // 2, KILL))
    return Finished(fresh, fresh.runs()[0])


def assert_resumed_with_a_wrapper_that_only_points(store: Store, run_id: str, wrapper: str, expected: Finished) -> None:
    assert store.metrics(run_id) == expected.store.metrics(expected.run_id)
    assert store.tags(run_id)["nfa.state"] == "finished"
    assert store.status(run_id) == "FINISHED"
    tags = store.tags(wrapper)
    assert tags["nfa.resumes"] == run_id
    assert tags["nfa.state"] == "finished"
    assert store.status(wrapper) == "FINISHED"
    assert store.metrics(wrapper) == []
    assert not {"nfa.workload", "nfa.trained", "nfa.entrypoint"} & set(tags)


def test_resume_continues_the_run_itself_and_its_wrapper_only_points_to_it(
    interrupted: Finished, finished: Finished
) -> None:
    store, run_id = interrupted.store, interrupted.run_id
    wrapper = wrapper_in(store)
    ended = run(store, words(resume=run_id), MLFLOW_RUN_ID=wrapper, MLFLOW_EXPERIMENT_ID="0")
    assert ended.code == 0, ended.output
    assert_resumed_with_a_wrapper_that_only_points(store, run_id, wrapper, finished)


@pytest.mark.slow
def test_resume_through_mlflow_run_itself(interrupted: Finished, finished: Finished) -> None:
    store, run_id = interrupted.store, interrupted.run_id
    code, output = mlflow_run(store.folder, resume=run_id).end()
    assert code == 0, output
    (wrapper,) = set(store.runs()) - {run_id}
    assert_resumed_with_a_wrapper_that_only_points(store, run_id, wrapper, finished)


def test_wrapper_says_killed_when_the_resumed_run_is(interrupted: Finished) -> None:
    wrapper = wrapper_in(interrupted.store)
    environment = {"MLFLOW_RUN_ID": wrapper, "MLFLOW_EXPERIMENT_ID": "0"}
    at_the_test = During("nfa.registry.training.alignment_session", "AlignmentSession.finish", TERM)
    ended = run(interrupted.store, words(resume=interrupted.run_id), before=at_the_test, **environment)
    assert ended.code == 143, ended.output
    for run_id in (wrapper, interrupted.run_id):
        assert interrupted.store.tags(run_id)["nfa.state"] == "killed"


def test_resume_that_is_refused_marks_the_wrapper(changeable: Finished) -> None:
    store = changeable.store
    wrapper = wrapper_in(store)
    ended = run(store, words(resume=changeable.run_id), MLFLOW_RUN_ID=wrapper, MLFLOW_EXPERIMENT_ID="0")
    assert ended.code == 2
    assert store.tags(wrapper)["nfa.state"] == "failed"
    assert "(finished)" in store.tags(wrapper)["nfa.error"]
    assert store.tags(changeable.run_id)["nfa.state"] == "finished"


def test_the_run_of_mlflow_is_known_by_the_tags_that_it_is_opened_with(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", wrapper_in(store))
    with tracking.open_run("gradient_flow", "mlp", name="of mine", tags={"mlflow.parentRunId": "above"}) as run:
        tags = run.info.data.tags
        assert (tags["nfa.entrypoint"], tags["nfa.workload"]) == ("gradient_flow", "mlp")
        assert tags["mlflow.parentRunId"] == "above"
        assert run.info.info.run_name == "of mine"


def test_interrupt_before_the_run_is_opened_marks_the_run_of_mlflow(store: Store) -> None:
    wrapper = wrapper_in(store)
    at_the_check = During("nfa.registry.doors", "check", TERM)
    ended = run(store, tiny(), before=at_the_check, MLFLOW_RUN_ID=wrapper, MLFLOW_EXPERIMENT_ID="0")
    assert ended.code == 143, ended.output
    assert store.tags(wrapper)["nfa.state"] == "killed"


def test_run_of_mlflow_that_has_a_training_already_is_not_written_over(changeable: Finished) -> None:
    store, run_id = changeable.store, changeable.run_id
    before = store.metrics(run_id)
    ended = run(store, tiny(seed=3), MLFLOW_RUN_ID=run_id, MLFLOW_EXPERIMENT_ID="0")
    assert ended.code == 2, ended.output
    assert "leave --run-id out" in ended.output
    assert store.metrics(run_id) == before
    assert store.tags(run_id)["nfa.state"] == "finished"


@pytest.mark.slow
def test_ctrl_c_of_mlflow_run_leaves_a_killed_run(empty_store: Store, tmp_path: Path) -> None:
    store = empty_store.copy(tmp_path / "store")
    words = ["-P", "epochs=100000", "-P", "width=8", "-P", "schedule=0"]
    process = subprocess.Popen(
        [str(BIN / "mlflow"), "run", str(ROOT), "-e", "train", *words],
        cwd=store.folder,
        env=unactivated(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout
    for line in process.stdout:
        if "epoch 0 " in line:
            break
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    process.communicate(timeout=60)
    (run_id,) = store.runs()
    assert store.tags(run_id)["nfa.state"] == "killed"
    assert store.status(run_id) in {"FAILED", "KILLED"}


@pytest.mark.slow
@pytest.mark.parametrize("manager", ["uv", "virtualenv"])
def test_environment_manager_builds_from_conda_yaml_and_trains(
    manager: str, empty_store: Store, tmp_path: Path
) -> None:
    """Needs a network, and in PATH uv or virtualenv; uv finds torch where UV_FIND_LINKS says."""
    env = {**unactivated(), "MLFLOW_ENV_ROOT": str(tmp_path / "envs")}
    if "PIP_FIND_LINKS" in env:
        env.setdefault("UV_FIND_LINKS", env["PIP_FIND_LINKS"])
    if not shutil.which(manager, path=env["PATH"]):
        pytest.skip(f"{manager} is not installed")
    store = empty_store.copy(tmp_path / "store")
    code, output = mlflow_run(store.folder, "--env-manager", manager, env=env, **TINY).end()
    if "error: failed to download Python-" in output:
        pytest.skip("virtualenv gets its Python through pyenv, which has no network here")
    assert code == 0, output
    (run_id,) = store.runs()
    assert store.status(run_id) == "FINISHED"
    assert store.checkpoints(run_id)


@pytest.mark.slow
def test_first_uses_at_the_same_time_in_a_folder_of_any_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "o#?%20 &'")
    store.folder.mkdir()
    env = {**unactivated(), "MLFLOW_EXPERIMENT_NAME": "new"}
    ended = [command.end() for command in [mlflow_run(store.folder, env=env, **TINY) for _ in range(3)]]
    assert [code for code, _ in ended] == [0, 0, 0], ended
    assert len(list(store.folder.glob("mlruns/1/*/artifacts/results.json"))) == 3
    assert [folder.name for folder in tmp_path.iterdir()] == [store.folder.name]
    assert {entry.name for entry in store.folder.iterdir()} == {"mlflow.db", "mlruns"}
