"""What every entry point refuses: one table, and one check of every row."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfa.registry.entry_points import entry_points
from tests.support import lora_runs
from tests.support.eeg_trainings import TINY as TINY_EEG
from tests.support.fine_tunings import OPTIONS as TINY_LORA
from tests.support.fine_tunings import Place
from tests.support.gradient_direction_runs import Trained
from tests.support.gradient_flow_runs import flow_of
from tests.support.old_checkpoints import net, save
from tests.support.prepared_recordings import small, write
from tests.support.processes import environment_of_tests, run, words
from tests.support.raw_recordings import recorded_folder
from tests.support.refusals import Row, Scene, assert_refused
from tests.support.refused.rows import ROWS
from tests.support.stores import Finished, Store, used, wrapper_in
from tests.support.tuning_runs import OPTIONS as TINY_STUDY
from tests.support.tuning_runs import tuned

NUMBERS = {"many_digits": "1" * 400, "too_many_digits": "1" * 5000, "long_name": "x" * 300}
EARLY = [row for row in ROWS if row.is_early]
MLFLOW = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI", "NFA_CALLER_DIR")


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_refused_with_one_message_and_nothing_made(
    row: Row, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(row, request.getfixturevalue(row.scene), capsys)


def test_every_entry_point_refuses_something_before_anything_heavy_is_loaded() -> None:
    assert {row.command.split()[0] for row in EARLY} == set(entry_points())


def test_in_a_process_of_its_own_words_are_refused_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    """All in one process, one after the other: the first that loads something is told."""
    asked = [row.words(NUMBERS) for row in EARLY]
    command = [sys.executable, "-m", "tests.support.refusals_one_by_one"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment_of_tests(), input=json.dumps(asked), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    for row, (code, heavy, said) in zip(EARLY, json.loads(ended.stdout), strict=True):
        assert (code, heavy) == (2, []), f"{row}: {said}"
        assert said.startswith("error: cannot use "), row
    assert list(tmp_path.iterdir()) == []


# ---- scenes


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def nothing(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """An empty folder, and no store."""
    for name in MLFLOW:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NFA_CACHE", str(cache))
    (folder := tmp_path / "folder").mkdir()
    monkeypatch.chdir(folder)
    return Scene(folder, monkeypatch, names={**NUMBERS, "folder": str(folder)})


def in_store(nothing: Scene, store: Store, **names: str) -> Iterator[Scene]:
    """The scene with a store that this process uses; the command is typed in another folder."""
    with used(store, nothing.monkeypatch):
        nothing.monkeypatch.chdir(nothing.folder)
        yield Scene(nothing.folder, nothing.monkeypatch, store, {**nothing.names, **names})


@pytest.fixture(scope="module")
def shared_store(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return empty_store.copy(tmp_path_factory.mktemp("store"))


@pytest.fixture(name="store")
def _store(nothing: Scene, shared_store: Store) -> Iterator[Scene]:
    """A store without a training."""
    yield from in_store(nothing, shared_store, tiny=" ".join(words(**TINY_EEG)))


@pytest.fixture(scope="module")
def shared_training(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(finished.store.copy(tmp_path_factory.mktemp("training")), finished.run_id)


@pytest.fixture
def training(nothing: Scene, shared_training: Finished) -> Iterator[Scene]:
    """A finished training."""
    yield from in_store(nothing, shared_training.store, run=shared_training.run_id)


@pytest.fixture
def own_training(nothing: Scene, finished: Finished, tmp_path: Path) -> Iterator[Scene]:
    """The same, to be changed."""
    yield from in_store(nothing, finished.store.copy(tmp_path / "store"), run=finished.run_id)


@pytest.fixture(scope="module")
def shared_analysis(shared_training: Finished) -> str:
    """The id of an analysis of the training."""
    with pytest.MonkeyPatch.context() as patch, used(shared_training.store, patch):
        return flow_of(shared_training.store, next(iter(shared_training.store.named())), n=4, epochs="0")


@pytest.fixture
def analysed(nothing: Scene, shared_training: Finished, shared_analysis: str) -> Iterator[Scene]:
    """A training and its analysis."""
    yield from in_store(nothing, shared_training.store, run=shared_training.run_id, made=shared_analysis)


@pytest.fixture(scope="module")
def shared_trainings(trained_runs: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(trained_runs.store.copy(tmp_path_factory.mktemp("trainings")), trained_runs.ids)


@pytest.fixture
def trainings(nothing: Scene, shared_trainings: Trained) -> Iterator[Scene]:
    """Several trainings."""
    ids = shared_trainings.ids
    yield from in_store(nothing, shared_trainings.store, main=ids["main"], fast=ids["fast"], other=ids["seed 4"])


@pytest.fixture
def old_checkpoint(nothing: Scene, shared_store: Store) -> Iterator[Scene]:
    """One file of an older program."""
    save(nothing.folder / "one/model_epoch_0.pth", net(0))
    yield from in_store(nothing, shared_store, **{"as": "--dataset digits --activation relu --device cpu"})


@pytest.fixture
def recorded(nothing: Scene, shared_store: Store) -> Iterator[Scene]:
    """Recordings that are to be prepared."""
    recorded_folder(nothing.folder / "recorded")
    rates = "--eeg_rate 250 --envelope_rate 128"
    yield from in_store(nothing, shared_store, rates=rates, asked=f"{rates} --source recorded --target out")


@pytest.fixture
def stories(store: Scene) -> Scene:
    """Prepared recordings."""
    write(store.folder / "stories", small())
    store.names["tiny"] = " ".join(words(**{key: value for key, value in TINY_EEG.items() if key != "window_seconds"}))
    return store


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place.made(tmp_path_factory.mktemp("place"))


@pytest.fixture
def questions(nothing: Scene, shared_store: Store, place: Place) -> Iterator[Scene]:
    """A base model and questions."""
    data = f"{place.folder}/questions.jsonl"
    tiny = {"base_model": f"{place.folder}/base", **TINY_LORA}
    rank = tiny.pop("rank")
    asked = {**tiny, "rank": rank, "data": data}
    names = {
        "place": str(place.folder),
        "data": data,
        "tiny": " ".join(words(**tiny)),
        "asked": " ".join(words(**asked)),
    }
    yield from in_store(nothing, shared_store, **names)


@pytest.fixture(scope="module")
def shared_adapter(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    store = empty_store.copy(tmp_path_factory.mktemp("adapter"))
    with pytest.MonkeyPatch.context() as patch, used(store, patch):
        return Finished(store, lora_runs.adapter_run(rank=4).run_id)


@pytest.fixture
def adapter(nothing: Scene, shared_adapter: Finished) -> Iterator[Scene]:
    """A run with an adapter."""
    yield from in_store(nothing, shared_adapter.store, adapter=shared_adapter.run_id, short=shared_adapter.run_id[:12])


@pytest.fixture(scope="module")
def another(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a study."""
    store = empty_store.copy(tmp_path_factory.mktemp("another"))
    ended = tuned(store, {"n_trials": 1})
    assert ended.code == 0, ended.output
    return store


@pytest.fixture
def study(nothing: Scene, shared_store: Store, another: Store) -> Iterator[Scene]:
    """A study of another store."""
    options = words(**{name: value for name, value in TINY_STUDY.items() if name not in ("fixed", "space")})
    names = {"fixed": TINY_STUDY["fixed"], "space": TINY_STUDY["space"], "study": " ".join(options)}
    yield from in_store(nothing, shared_store, url=f"sqlite:///{another.folder}/optuna.db", **names)


# ---- under `mlflow run`


def test_a_refusal_under_mlflow_run_marks_its_run_failed(changeable: Finished) -> None:
    wrapper = wrapper_in(changeable.store)
    env = {"MLFLOW_RUN_ID": wrapper, "MLFLOW_EXPERIMENT_ID": "0"}
    ended = run(changeable.store, words(sites="conv"), entrypoint="analyze", **env)
    assert ended.code == 2
    assert changeable.store.tags(wrapper)["nfa.state"] == "failed"
    assert "sites=conv" in changeable.store.tags(wrapper)["nfa.error"]
    assert changeable.store.status(wrapper) == "FAILED"
    assert changeable.store.runs() == [changeable.run_id, wrapper]
