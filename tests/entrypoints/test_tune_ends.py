"""Studies that are interrupted, killed, shared or doomed."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.fault_injection import KILL, TERM, During
from tests.support.processes import launch, words
from tests.support.stores import Store, same_weights
from tests.support.tuning_runs import NAME, OPTIONS, Study, tuned

MIDDLE = 14  # of the reports of epochs: in the third trial, between two of its checkpoints
REPORT = ("nfa.registry.training.tracked", "TrackedTraining._after")


@pytest.fixture(scope="module")
def whole(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Study:
    store = empty_store.copy(tmp_path_factory.mktemp("whole"))
    ended = tuned(store, {"n_trials": 4})
    assert ended.code == 0, ended.output
    return Study(store)


def assert_same_studies(study: Study, whole: Study) -> None:
    """The same trials with the same series and weights, each in one run, no row twice."""
    assert list(study.trials) == list(whole.trials)
    for name, run_id in study.trials.items():
        assert study.store.metrics(run_id) == whole.store.metrics(whole.trials[name])
        assert same_weights(study.store.checkpoints(run_id), whole.store.checkpoints(whole.trials[name]))
        assert study.state(name) == ("FINISHED", "finished")
    assert len({run_id for *_, run_id in study.rows()}) == len(study.trials)


@pytest.mark.parametrize(
    ("act", "code"),
    [
        pytest.param(TERM, 143, id="SIGTERM"),
        pytest.param(KILL, -signal.SIGKILL, id="SIGKILL", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_study_goes_on_in_the_same_runs_to_the_same_trials(
    whole: Study, empty_store: Store, tmp_path: Path, act: During, code: int
) -> None:
    store = empty_store.copy(tmp_path / "study")
    ended = tuned(store, {"n_trials": 4}, before=During(*REPORT, act, MIDDLE))
    assert ended.code == code, ended.output
    study = Study(store)
    if code == 143:
        assert f"study_name={NAME}" in ended.output
        assert store.tags(study.parent)["nfa.state"] == "killed"
        assert study.state("trial 2") == ("KILLED", "killed")
        assert [state for _, state, slot, _ in study.rows() if slot == 2] == ["FAIL", "WAITING"]
    begun = store.metrics(study.trials["trial 2"])
    again = tuned(store, {"n_trials": 4})
    assert again.code == 0, again.output
    assert begun
    assert set(begun) <= set(store.metrics(study.trials["trial 2"]))
    assert_same_studies(study, whole)
    assert store.tags(study.parent)["nfa.state"] == "finished"


def test_an_interrupted_confirmation_goes_on_under_the_name_of_the_study(empty_store: Store, tmp_path: Path) -> None:
    store = empty_store.copy(tmp_path / "study")
    options = {"n_trials": 2, "confirm": 2, "enqueue": "defaults;lr=0.01,optimizer=adam"}
    ended = tuned(store, options, before=During(*REPORT, TERM, 2 * 5 + 7))  # in the second of its four trainings
    assert ended.code == 143, ended.output
    assert f"continue with study_name={NAME}\n" in ended.output
    again = tuned(store, options)
    assert again.code == 0, again.output
    study = Study(store)
    (confirmation,) = (run_id for name, run_id in study.below(study.parent).items() if "confirmation" in name)
    trained = study.below(confirmation)
    assert len(trained) == 4
    assert {store.tags(run_id)["nfa.state"] for run_id in (*trained.values(), confirmation)} == {"finished"}


def test_a_killed_worker_is_replaced_and_its_trial_finished_in_the_same_run(empty_store: Store, tmp_path: Path) -> None:
    store = empty_store.copy(tmp_path / "study")
    options = {"n_trials": 3, "n_workers": 2, "fixed": "epochs=30,width=8,depth=2,schedule=0-30/10,batch_size=16"}
    child = launch(store, words(**{**OPTIONS, **options}), entrypoint="tune")
    child.wait_for("trial 0")
    victim, run_id = _at_work(Study(store))
    os.kill(victim, signal.SIGKILL)
    ended = child.end()
    assert ended.code == 0, ended.output
    assert f"worker {victim} was ended by signal 9; it is replaced" in ended.output
    study = Study(store)
    assert len(study.trials) == 3
    lost = [slot for _, state, slot, _ in study.rows() if state == "FAIL"]
    assert len(lost) == 1
    assert study.trials[f"trial {lost[0]}"] == run_id
    for name, one in study.trials.items():
        assert study.state(name) == ("FINISHED", "finished")
        assert list(study.series(one, "val/loss")) == list(study.series(one, "objective")) == list(range(31))


def _at_work(study: Study) -> tuple[int, str]:
    """A worker in the middle of a trial, and the trial's run."""
    import json

    until = time.monotonic() + 60
    while time.monotonic() < until:
        for name, run_id in study.trials.items():
            if study.state(name) == ("RUNNING", "running") and len(study.store.metrics(run_id)) > 10:
                return json.loads(study.store.tags(run_id)["nfa.heartbeat"])["pid"], run_id
        time.sleep(0.01)
    raise AssertionError("no trial was under way")


def test_a_second_start_takes_part_and_no_trial_runs_twice(empty_store: Store, tmp_path: Path) -> None:
    store = empty_store.copy(tmp_path / "study")
    options = {"n_trials": 8, "fixed": "epochs=30,width=8,depth=2,schedule=0,30,batch_size=16"}
    first = launch(store, words(**{**OPTIONS, **options}), entrypoint="tune")
    first.wait_for("trial 0")
    second = launch(store, words(**{**OPTIONS, **options}), entrypoint="tune")
    ended = [first.end(), second.end()]
    assert [one.code for one in ended] == [0, 0], "\n".join(one.output for one in ended)
    assert "the study is already running" in ended[1].output
    study = Study(store)
    assert len(study.trials) == len(study.rows()) == 8
    said = [line.split()[1] for one in ended for line in one.output.splitlines() if line.strip().startswith("trial ")]
    assert sorted(said) == sorted(map(str, range(8)))
    assert "trial" in ended[1].output.split("already running")[1], "the second one did some of the work"


def test_a_study_whose_trials_all_fail_ends_early_with_the_first_error(empty_store: Store, tmp_path: Path) -> None:
    store = empty_store.copy(tmp_path / "study")
    options = {"n_trials": 30, "space": "lr=log:1e25:1e30", "fixed": "epochs=2,width=8,depth=2,schedule=0,2"}
    ended = tuned(store, {**options, "enqueue": "none"})
    assert ended.code == 1
    assert "the first 5 trials failed; the first error: the training loss became" in ended.output
    study = Study(store)
    assert {study.state(name) for name in study.trials} == {("FAILED", "failed")}
    assert len(study.trials) == 5
    assert store.status(study.parent) == "FAILED"


def test_trials_that_diverge_do_not_stop_those_that_learn(empty_store: Store, tmp_path: Path) -> None:
    store = empty_store.copy(tmp_path / "study")
    points = "lr=1e25;lr=0.1;lr=1e26"
    ended = tuned(store, {"n_trials": 3, "space": "lr=log:1e-4:1e30", "enqueue": points})
    assert ended.code == 0, ended.output
    study = Study(store)
    states = {name: study.state(name)[1] for name in study.trials}
    assert states == {"trial 0": "failed", "trial 1": "finished", "trial 2": "failed"}
    assert store.tags(study.parent)["nfa.best_trial"] == "1"
    assert "Try a smaller learning rate" in store.tags(study.trials["trial 0"])["nfa.error"]
    assert not any(store.artifact(run_id, "state/latest.pt").exists() for run_id in study.trials.values())


def test_after_its_time_is_up_a_study_begins_no_trial_and_can_go_on(empty_store: Store, tmp_path: Path) -> None:
    store = empty_store.copy(tmp_path / "study")
    ended = tuned(store, {"n_trials": 300, "timeout": 2})
    assert ended.code == 0, ended.output
    study = Study(store)
    assert 0 < len(study.trials) < 300
    assert f"{300 - len(study.trials)} trials have not started" in ended.output
    assert "nfa.best_trial" in store.tags(study.parent)


@pytest.mark.slow
def test_a_study_in_postgresql_is_shared_by_two_starts(empty_store: Store, tmp_path: Path) -> None:
    from tests.support.postgresql import server

    with server() as address:
        store = empty_store.copy(tmp_path / "study")
        options = {**OPTIONS, "n_trials": 8, "storage": address, "n_workers": 2}
        first = launch(store, words(**options), entrypoint="tune")
        first.wait_for("trial ")
        second = launch(store, words(**options), entrypoint="tune")
        ended = [first.end(), second.end()]
        assert [one.code for one in ended] == [0, 0], "\n".join(one.output for one in ended)
        query = "SELECT state, count(*) FROM trials GROUP BY state"
        counted = subprocess.run(["psql", "-At", address, "-c", query], capture_output=True, text=True, check=True)
        assert counted.stdout.strip() == "COMPLETE|8"
    assert len(Study(store).trials) == 8
    assert not (store.folder / "optuna.db").exists()
