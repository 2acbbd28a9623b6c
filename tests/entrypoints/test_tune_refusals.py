"""What `tune` refuses: exit 2, one message, and no study and no run is left behind."""

from pathlib import Path

import mlflow
import optuna
import pytest

from tests.support.processes import words
from tests.support.refusals import Refused, assert_refused_before_anything_heavy
from tests.support.stores import Store
from tests.support.tuning_runs import NAME, OPTIONS, tuned

WORDS = [
    ("--objective val/los", "objective=val/los (no run logs it)"),
    ("--space lr=1:1", "space: lr=1:1 (an empty range)"),
    ("--space lr=log:1:1e-5", "space: lr=log:1:1e-5 (a reversed range)"),
    ("--space learning_rate=0.1:1", "space: parameter 'learning_rate'"),
    ("--fixed epoch=3", "fixed: parameter 'epoch'"),
    ("--constraint flow/grad_norm", "constraint='flow/grad_norm'"),
    ("--constraint flow/grad_normal<1", "constraint=flow/grad_normal (no run logs it)"),
    ("--storage postgres", "storage=postgres"),
    ("--sampler tpa", "sampler='tpa'"),
    ("--objective val/loss,val/accuracy --pruner median", "pruner=median with 2 objectives"),
]


@pytest.mark.parametrize(("text", "got"), WORDS)
def test_words_that_cannot_be_used_are_refused_before_anything_heavy(text: str, got: str, tmp_path: Path) -> None:
    assert_refused_before_anything_heavy("tune", text, got, tmp_path)


@pytest.fixture
def refused(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """In an empty store."""
    assert store.runs() == []
    return Refused("tune", monkeypatch, capsys)


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("postgresql://me:secret@127.0.0.1:1/studies", "Connection refused"),
        ("sqlite:////nowhere/optuna.db", "no database file can be created in /nowhere"),
        ("oracle://x/y", "oracle"),
    ],
)
def test_a_storage_that_cannot_be_reached_is_refused_in_its_own_words(
    refused: Refused, store: Store, storage: str, said: str
) -> None:
    text = refused(words(storage=storage))
    assert said in text
    assert "secret" not in text
    assert store.runs() == []


def test_data_that_are_missing_are_refused_and_leave_no_study(refused: Refused, store: Store, tmp_path: Path) -> None:
    text = refused(words(fixed=f"dataset=svhn,data_dir={tmp_path}"))
    assert "train_32x32.mat" in text
    assert store.runs() == []
    assert not (store.folder / "optuna.db").exists()


def test_a_server_that_is_not_there_is_refused_and_leaves_no_study(refused: Refused, store: Store) -> None:
    mlflow.set_tracking_uri("http://127.0.0.1:1")
    assert "tracking store http://127.0.0.1:1" in refused([])
    assert not (store.folder / "optuna.db").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"space": "lr=log:1e-3:1"}, "space lr=log:0.001:1.0 (it has lr=log:0.0001:1.0,optimizer=sgd|adam)"),
        ({"objective": "val/accuracy"}, "objective"),
        ({"fixed": "epochs=5"}, "fixed epochs=5 (it has epochs=4"),
        ({"seeds": 2}, "seeds 2 (it has 1)"),
    ],
)
def test_another_search_under_the_name_of_a_study_is_refused(
    refused: Refused, another: Store, store: Store, options: dict[str, str], said: str
) -> None:
    text = refused(words(**{**OPTIONS, **options, "storage": f"sqlite:///{another.folder}/optuna.db"}))
    assert f"study_name={NAME} with" in text
    assert said in text
    assert "another study_name" in text
    assert store.runs() == []


def test_a_study_of_another_tracking_store_is_refused(refused: Refused, another: Store, store: Store) -> None:
    text = refused(words(**OPTIONS, storage=f"sqlite:///{another.folder}/optuna.db"))
    assert "is not in this tracking store" in text
    assert "MLFLOW_TRACKING_URI" in text
    assert store.runs() == []


def test_a_study_of_another_program_is_refused(refused: Refused, store: Store) -> None:
    url = f"sqlite:///{store.folder}/foreign.db"
    study = optuna.create_study(study_name=NAME, storage=url)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert "not created by tune" in refused(words(**OPTIONS, storage=url))


@pytest.fixture(scope="module")
def another(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a study."""
    store = empty_store.copy(tmp_path_factory.mktemp("another"))
    ended = tuned(store, {"n_trials": 1})
    assert ended.code == 0, ended.output
    return store
