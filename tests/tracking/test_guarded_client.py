"""What goes to the store, and what comes out of it in an error, is without passwords."""

from typing import Any

import matplotlib.pyplot as plt
import mlflow
import pytest
from mlflow.exceptions import MlflowException

from nfa import masking
from nfa.errors import Refusal
from nfa.registry import tracking
from nfa.registry.tracking import DataInput, places
from nfa.registry.tracking import store as stores
from nfa.registry.tracking.guarded_client import GuardedClient
from tests.support.stores import Store

ADDRESS = "postgresql://me:geh@im/7@host/runs"


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_typed", {ADDRESS})


def assert_untold(store: Store) -> None:
    for part in (b"geh@im/7", b"geh%40im", b"im/7@host"):
        assert [file for file in store.folder.rglob("*.*") if part in file.read_bytes()] == []


def test_nothing_that_a_run_keeps_holds_a_password(store: Store) -> None:
    run = tracking.open_run("train", "mlp", name=f"of {ADDRESS}", tags={"nfa.study": ADDRESS})
    with run:
        run.tag({"nfa.variant": f"'{ADDRESS}'"})
        run.log_params({"storage": ADDRESS, "width": 8})
        run.log_datasets([DataInput(ADDRESS, "0" * 32, f"{ADDRESS}?password=other", "train")])
        tracking.put_json(run.info, "config.json", {"train": {"storage": ADDRESS, "lr": 0.5}})
        tracking.put_text(run.info, "report.txt", f"made of {ADDRESS}")
        figure = plt.figure()
        figure.suptitle(ADDRESS)
        tracking.save_picture(run, figure, "picture", also_pdf=False)
    (run_id,) = store.runs()
    said = "postgresql://me:***@host/runs"
    assert store.named() == {f"of {said}": run_id}
    assert store.params(run_id).items() >= {"storage": said, "width": "8"}.items()
    assert store.rows("SELECT name, dataset_source FROM datasets") == [(said, f'{{"uri": "{said}?password=***"}}')]
    assert store.json(run_id, "config.json") == {"train": {"storage": said, "lr": 0.5}}
    assert figure.get_suptitle() == said
    assert_untold(store)


def test_the_end_of_a_run_cuts_no_password_in_two(store: Store) -> None:
    text = "x" * 4993 + ADDRESS.replace("postgresql://me", "a://b")
    with pytest.raises(ValueError, match="x"), tracking.open_run("train", "mlp"):
        raise ValueError(text)
    (run_id,) = store.runs()
    assert store.tags(run_id)["nfa.error"] == "x" * 4993 + "a://b:*"


def test_an_error_of_the_database_is_raised_and_mlflow_prints_no_traceback_of_it(
    store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    with tracking.open_run("train", "mlp") as run:
        store.change("ALTER TABLE params RENAME TO lost")
        with pytest.raises(MlflowException, match="no such table"):
            run.log_params({"lr": 1.0})
        store.change("ALTER TABLE lost RENAME TO params")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.usefixtures("store")
def test_what_is_stored_under_a_masked_name_is_found_by_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "geh@im|7")
    stores.client().create_registered_model("of geh@im|7")
    assert stores.client().get_registered_model("of geh@im|7").name == "of ***"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://me:geheim@host:1", "http://me:***@host:1/#/experiments/0/runs/"),
        ("postgresql://me:geheim@host/runs", "mlflow server --backend-store-uri postgresql://me:***@host/runs)"),
    ],
)
def test_a_link_tells_no_password(address: str, said: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stores.client().create_run("0")
    monkeypatch.setattr(places, "store_address", lambda: address)
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: address)
    assert said in stores.link(run)
    assert "geheim" not in stores.link(run)
    assert store.runs() == [run.info.run_id]


def test_an_error_of_the_store_tells_no_password(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise MlflowException(f"API request to {ADDRESS} failed")

    client = GuardedClient(store.uri)
    for name in ("get_run", "log_artifact"):
        monkeypatch.setattr(mlflow.MlflowClient, name, failing)
        with pytest.raises(MlflowException, match=r"API request to postgresql://me:\*\*\*@host/runs failed") as told:
            getattr(client, name)("abc")
        assert told.value.__suppress_context__


def test_an_error_that_tells_nothing_is_the_very_error(store: Store) -> None:
    with pytest.raises(MlflowException, match="not found") as told:
        GuardedClient(store.uri).get_run("abc")
    assert told.value.error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.usefixtures("store")
def test_a_refusal_in_a_notebook_tells_no_password_and_has_no_cause_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_typed", set())
    mlflow.set_tracking_uri("http://me:geh/im77@127.0.0.1:1")
    with pytest.raises(Refusal, match=r"http://me:\*\*\*@127.0.0.1:1") as told:
        tracking.open_run("train", "mlp")
    assert told.value.__cause__ is None
    assert "geh" not in str(told.value)
    assert "im77" not in str(told.value)
