"""A folder's name is a name: nothing in it is decoded, cut off, or made a second time beside it."""

import os
import urllib.parse
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.store.db.utils import _make_parent_dirs_if_sqlite
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import append_to_uri_path, resolve_uri_if_local

from nfa.errors import Refusal
from nfa.registry import tracking
from nfa.registry.tracking import places
from nfa.registry.tracking.store import client
from tests.support.processes import launch
from tests.support.stores import Store
from tests.support.tiny_runs import tiny

HARD = ["lab#1", "a?b", "a%20b", "100%", "sp ace", 'it\'s "so"', "a&b;c", "a:b@c", "-ü ☃", "a?..b", "x\\y[z]{q}$*`~"]
NAMES = st.text(st.characters(exclude_characters="/\0\n", exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.fixture
def _no_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "NFA_CALLER_DIR", places.ROOT):
        monkeypatch.delenv(name, raising=False)


@given(name=NAMES.filter(lambda name: name not in (".", "..")))
@example(name="a?..b")
@example(name="%2e%2e")
def test_mlflow_finds_the_files_of_a_new_experiment_in_the_folder_of_any_name(name: str) -> None:
    folder = Path("/typed", name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NFA_CALLER_DIR", str(folder))
        patch.delenv(places.ROOT, raising=False)
        with places.rooted():
            root = resolve_uri_if_local(os.environ[places.ROOT])
        assert places.ROOT not in os.environ
    run = append_to_uri_path(append_to_uri_path(root, "0"), "id", "artifacts")
    assert Path(local_file_uri_to_path(run)) == folder / "mlruns/0/id/artifacts"
    assert not {"'", ":", "\\"} & set(run.removeprefix("file:").removeprefix(str(folder)))  # MLflow puts it into SQL


def test_an_artifact_root_that_is_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.ROOT, "s3://bucket")
    with places.rooted():
        assert os.environ[places.ROOT] == "s3://bucket"
    assert os.environ[places.ROOT] == "s3://bucket"


@pytest.mark.usefixtures("_no_uri")
@pytest.mark.parametrize("name", HARD)
def test_the_default_store_is_in_its_folder_and_mlflow_makes_none_beside_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    address = places.store_address()
    _make_parent_dirs_if_sqlite(address)
    assert places.sqlite_file(address) == folder / "mlflow.db"
    assert tracking.beside_store("optuna.db") == folder / "optuna.db"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.usefixtures("_no_uri")
@pytest.mark.parametrize("name", ["a%20b", "a?b"])
def test_a_path_typed_as_the_store_s_address_is_refused_where_it_means_another_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/{name}/mlflow.db")
    with pytest.raises(Refusal, match="write % as %25 and \\? as %3F"):
        places.store_address()
    assert os.listdir(tmp_path) == [name]


@pytest.mark.usefixtures("_no_uri")
@pytest.mark.parametrize("uri", ["", "sqlite://"], ids=["default store", "another store"])
def test_a_folder_whose_name_no_address_can_hold_is_refused(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(b"n\xff")
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(Refusal, match="UTF-8"), tracking.reaching_store():
        client()
    assert os.listdir(tmp_path) == [folder.name]
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("sqlite:////x/a%20b.db", "/x/a b.db"),
        ("sqlite+pysqlite:////x/a%2520b.db", "/x/a%20b.db"),
        ("sqlite:///file:/x/a.db?mode=ro&uri=true", "/x/a.db"),
        ("sqlite:///file:a?mode=memory&uri=true", None),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("postgresql://me@host/name", None),
        ("http://host:5000", None),
        ("databricks", None),
    ],
)
def test_the_file_of_a_database(address: str, file: str | None) -> None:
    assert places.sqlite_file(address) == (Path(file) if file else None)


def stored(store: Store, location: str, artifacts: str) -> Run:
    """A run whose address, and that of its experiment, are as some version of MLflow wrote them."""
    run_id = MlflowClient().create_run("0").info.run_id
    store.change("UPDATE experiments SET artifact_location = ?", location)
    store.change("UPDATE runs SET artifact_uri = ?", artifacts.format(id=run_id))
    return MlflowClient().get_run(run_id)


@pytest.mark.parametrize(
    ("location", "folder"),
    [
        ("/x/sp ace/mlruns/0", "/x/sp ace/mlruns/0"),
        ("/x/lab#1?/mlruns/0", "/x/lab#1?/mlruns/0"),
        ("file:///x/sp ace/mlruns/0", "/x/sp ace/mlruns/0"),
        ("file:///x/sp%20ace/mlruns/0", "/x/sp ace/mlruns/0"),
        ("file:///x/a%2520b%23/mlruns/0", "/x/a%20b#/mlruns/0"),
        ("s3://bucket/0", None),
        ("mlflow-artifacts:/0", None),
    ],
)
def test_a_run_s_folder_is_the_one_of_its_address(store: Store, location: str, folder: str | None) -> None:
    run = stored(store, location, f"{location}/{{id}}/artifacts")
    expected = Path(folder, run.info.run_id, "artifacts") if folder else None
    assert places.local_folder(run) == expected


@pytest.mark.parametrize(
    ("location", "artifacts", "trouble"),
    [
        ("file:///x/lab#1/mlruns/0", "file:///x/lab/{id}/artifacts#1/mlruns/0", "cut off at # or ?"),
        ("/x/lab/mlruns/0", "/x/lab", "without the run's id"),
        ("/x/lab/mlruns/0", "file:///x/other/{id}/artifacts", "outside of /x/lab/mlruns/0"),
        ("/x/a%20b/mlruns/0", "/x/a%20b/mlruns/0/{id}/artifacts", "its % decoded"),
    ],
)
def test_an_address_that_leads_elsewhere_is_refused(store: Store, location: str, artifacts: str, trouble: str) -> None:
    run = stored(store, location, artifacts)
    with pytest.raises(Refusal) as refused:
        tracking.put_text(run, "a.txt", "a")
    for part in (run.info.run_id, run.info.artifact_uri, trouble, "MLFLOW_EXPERIMENT_NAME"):
        assert part in str(refused.value)
    assert not Path("/x").exists()


def test_what_was_stored_where_mlflow_reads_stays_readable_and_can_be_analysed(store: Store, tmp_path: Path) -> None:
    location = f"{tmp_path}/a%20b/mlruns/0"
    run = stored(store, location, f"{location}/{{id}}/artifacts")
    kept = Path(urllib.parse.unquote(run.info.artifact_uri))
    kept.mkdir(parents=True)
    kept.joinpath("a.txt").write_text("a")
    assert tracking.get(run.info.run_id, "a.txt") == kept / "a.txt"
    child = MlflowClient().create_run("0", tags={"mlflow.parentRunId": run.info.run_id})
    assert places.local_folder(child) == kept.parents[1] / child.info.run_id / "artifacts"


@pytest.mark.usefixtures("_no_uri")
def test_two_first_trainings_in_a_folder_of_any_name_keep_their_files_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "o#?%20:;&'\"@ ü..x\\y*[z]")
    neighbour = tmp_path / "o" / "config.json"
    for folder in (store.folder, neighbour.parent):
        folder.mkdir()
    neighbour.write_text("mine")
    default = {"MLFLOW_TRACKING_URI": ""}
    trainings = [launch(store, tiny(epochs=1, schedule="0-1", seed=seed), **default) for seed in (1, 2)]
    ended = [training.end() for training in trainings]
    assert [one.code for one in ended] == [0, 0], "\n".join(one.output for one in ended)
    monkeypatch.chdir(store.folder)
    for run_id in store.runs():
        own = store.folder / "mlruns" / "0" / run_id / "artifacts"
        assert own.joinpath("config.json").is_file()
        assert tracking.get(run_id, "config.json") == own / "config.json"
        assert tracking.epochs(run_id) == [0, 1]
    assert {entry.name for entry in tmp_path.iterdir()} == {store.folder.name, "o"}
    assert list(neighbour.parent.iterdir()) == [neighbour]
    assert neighbour.read_text() == "mine"
