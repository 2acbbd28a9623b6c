"""Series are read in few requests, and always as MLflow returns them key by key."""

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.dbmodels import models
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from sqlalchemy import event

from nfa.registry import tracking
from nfa.registry.tracking import series_file, sql_series
from nfa.registry.tracking.artifacts import SERIES
from nfa.registry.tracking.guarded_client import GuardedClient
from nfa.registry.tracking.series_file import ROWS
from nfa.registry.tracking.store import client
from tests.support.mlflow_servers import serving
from tests.support.stores import Store

STEPS = (-(2**62), -3, 0, 1, 2, 7, 2**40, 2**62)
KEYS = tuple(f"block_{index}/agop_nfm" for index in range(6))

pytestmark = pytest.mark.usefixtures("store")


def logged_by_another_program(seed: int, rows: int = 150) -> str:
    """A run with several values at one step, out of order, NaN among them."""
    chosen, run_id = random.Random(seed), str(MlflowClient().create_run("0").info.run_id)
    for _ in range(rows):
        value = chosen.choice([math.nan, -1.5, 2.5, 1e-300, 1e300])
        metric = Metric(chosen.choice(KEYS), value, chosen.randrange(1, 5), chosen.choice(STEPS))
        MlflowClient().log_batch(run_id, metrics=[metric])
    return run_id


def key_by_key(run_id: str, among: tuple[str, ...] = ()) -> str:
    """What MLflow returns, in its order, with NaN written out."""
    keys = [key for key in MlflowClient().get_run(run_id).data.metrics if key in among or not among]
    history = MlflowClient().get_metric_history
    return repr({key: {item.step: item.value for item in history(run_id, key)} for key in keys})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys whose series are asked for one by one."""
    keys: list[str] = []
    ask = MlflowClient.get_metric_history

    def noted(self: MlflowClient, run_id: str, key: str) -> list[Metric]:
        keys.append(key)
        return ask(self, run_id, key)

    monkeypatch.setattr(MlflowClient, "get_metric_history", noted)
    return keys


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables cannot be reached, as through a server."""
    monkeypatch.setattr(GuardedClient, "store", object())


# ---- from the tables


@pytest.mark.parametrize("seed", range(3))
def test_series_from_the_tables_are_those_of_mlflow_in_its_order(seed: int, asked: list[str]) -> None:
    run_id = logged_by_another_program(seed)
    found = tracking.history(run_id)
    some = tracking.history(run_id, [KEYS[3], "no such key", KEYS[0]])
    assert asked == []  # this version of MLflow has the tables that are expected
    assert repr(found) == key_by_key(run_id)
    assert repr(some) == key_by_key(run_id, (KEYS[3], KEYS[0]))
    assert "nan" in repr(found)


def test_more_keys_than_one_query_takes_are_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = logged_by_another_program(3)
    monkeypatch.setattr(sql_series, "MOST", 2)
    assert repr(tracking.history(run_id, KEYS[:5])) == key_by_key(run_id, KEYS[:5])


def test_a_deleted_run_and_one_without_metrics_are_read_as_by_mlflow(asked: list[str]) -> None:
    deleted, empty = logged_by_another_program(4), str(MlflowClient().create_run("0").info.run_id)
    MlflowClient().delete_run(deleted)
    assert repr(tracking.histories([deleted, empty])) == f"{{{deleted!r}: {key_by_key(deleted)}, {empty!r}: {{}}}}"
    assert set(asked) <= set(KEYS)


@pytest.fixture
def queries(store: Store) -> Iterator[list[str]]:  # noqa: ARG001 - whose queries are counted
    said: list[str] = []
    engine = GuardedClient.store.fget(client()).engine  # type: ignore[attr-defined]

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("SELECT"):
            said.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield said
    event.remove(engine, "before_cursor_execute", note)


def test_many_runs_take_as_many_queries_as_one(queries: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [logged_by_another_program(seed, 10) for seed in range(5)]
    counts = []
    for part in (ids[:1], ids):
        queries.clear()
        assert list(tracking.histories(part)) == part
        counts.append(len(queries))
    assert counts == [2, 2]
    expected = {run_id: key_by_key(run_id) for run_id in ids}
    monkeypatch.setattr(sql_series, "MOST", 2)
    queries.clear()
    assert {run_id: repr(of_run) for run_id, of_run in tracking.histories(ids).items()} == expected
    assert len(queries) == 6  # of two, two and one run


class Elsewhere(SqlAlchemyStore):
    """The store of a plugin, with an opinion about what a series is."""

    def get_metric_history(self, run_id: str, metric_key: str, *rest: Any, **named: Any) -> Any:
        """The values negated."""
        found = super().get_metric_history(run_id, metric_key, *rest, **named)  # type: ignore[no-untyped-call]
        for metric in found:
            metric._value = -metric.value
        return found


def of_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    store = GuardedClient.store.fget(client())  # type: ignore[attr-defined]
    monkeypatch.setattr(store, "__class__", Elsewhere)


def with_another_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_series, "COLUMNS", sql_series.COLUMNS - {"is_nan"})


def without_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(models, "SqlMetric")


def without_the_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.SqlMetric, "__table__", property())



@pytest.mark.parametrize("differ", [of_a_plugin, with_another_column, without_the_class, without_the_attribute])
def test_tables_that_are_not_as_expected_are_left_alone_and_the_series_read_key_by_key(
    differ: Callable[[pytest.MonkeyPatch], None], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = logged_by_another_program(5)
    plain = repr(tracking.history(run_id))
    assert asked == []
    differ(monkeypatch)
    found = repr(tracking.history(run_id))
    assert sorted(asked) == sorted(KEYS)
    assert found == key_by_key(run_id)
    assert (found == plain) == (differ is not of_a_plugin)


def test_a_run_that_does_not_exist_is_an_error_of_the_store() -> None:
    with pytest.raises(MlflowException, match="not found"):
        tracking.history("0" * 32)
    with pytest.raises(MlflowException, match="not found"):
        tracking.histories([logged_by_another_program(6, 3), "0" * 32])


@pytest.mark.slow
def test_series_from_the_tables_of_postgresql_are_those_of_mlflow(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support import postgresql

    before = mlflow.get_tracking_uri()
    with postgresql.server() as address:
        uri = address.replace("postgresql:", "postgresql+psycopg:")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        try:
            tracking.reach()
            ids = [logged_by_another_program(seed, 40) for seed in range(2)]
            found = tracking.histories(ids)
            assert asked == []
            for run_id in ids:
                assert {key: repr(of) for key, of in found[run_id].items()} == {
                    key: repr({row.step: row.value for row in MlflowClient().get_metric_history(run_id, key)})
                    for key in MlflowClient().get_run(run_id).data.metrics
                }
        finally:
            mlflow.set_tracking_uri(before)


# ---- from the file of a run


def trained(steps: range = range(4), run_id: str = "") -> str:
    run = tracking.reopen_run(run_id, finished_too=True) if run_id else tracking.open_run("train", "mlp")
    with run:
        for step in steps:
            run.metrics.log({key: step + index / 10 for index, key in enumerate(KEYS)}, step)
    return run.run_id


def test_a_run_leaves_its_series_and_is_read_from_them_through_a_server(asked: list[str], served: None) -> None:  # noqa: ARG001
    run_id = trained()
    assert tracking.files(run_id) == [SERIES]
    assert client().get_run(run_id).data.tags[ROWS] == "24"
    found = tracking.history(run_id)
    some = tracking.history(run_id, KEYS[1:5])
    assert asked == []
    assert repr(found) == key_by_key(run_id)
    assert repr(some) == key_by_key(run_id, KEYS[1:5])


@pytest.mark.usefixtures("served")
def test_few_keys_are_read_without_the_file(asked: list[str]) -> None:
    assert list(tracking.history(trained(), KEYS[:2])) == list(KEYS[:2])
    assert asked == list(KEYS[:2])


def test_a_run_in_tables_leaves_its_series_at_its_end_only(store: Store) -> None:
    run = tracking.open_run("train", "mlp")
    with run:
        run.metrics.log({"val/loss": 1.0}, 0)
        run.metrics.checkpoint(run.info)
        assert store.metrics(run.run_id)
        assert tracking.files(run.run_id) == []
    assert tracking.files(run.run_id) == [SERIES]


@pytest.mark.usefixtures("served")
def test_through_a_server_every_checkpoint_leaves_the_series(asked: list[str]) -> None:
    run = tracking.open_run("train", "mlp")
    with run:
        run.metrics.log(dict.fromkeys(KEYS, 0.5), 0)
        run.metrics.checkpoint(run.info)
        assert tracking.history(run.run_id) == {key: {0: 0.5} for key in KEYS}
    assert asked == []


@pytest.mark.usefixtures("served")
def test_a_resumed_run_has_the_rows_of_all_its_processes(asked: list[str]) -> None:
    run_id = trained()
    trained(range(2, 6), run_id)
    asked.clear()
    found = tracking.history(run_id)
    assert asked == []
    assert repr(found) == key_by_key(run_id)
    assert list(found[KEYS[0]]) == list(range(6))


@pytest.mark.usefixtures("served")
def test_only_what_nfa_has_logged_is_read_from_the_file_of_a_resumed_run(asked: list[str]) -> None:
    """Another program may have logged a step again, which no last row shows."""
    run_id = trained()
    for step in (5, 9):
        MlflowClient().log_metric(run_id, "their/loss", 0.5, step=step)
    run = tracking.reopen_run(run_id, finished_too=True)
    with run:
        run.metrics.log({KEYS[0]: 4.0}, 4)
        MlflowClient().log_metric(run_id, "their/loss", 0.25, step=5, timestamp=2**42)
    asked.clear()
    found = tracking.history(run_id)
    assert found["their/loss"] == {9: 0.5, 5: 0.25}
    assert asked == ["their/loss"]


def later(run_id: str, value: float = 9.0, key: str = KEYS[2]) -> None:
    """Another program logs a value after the last step."""
    MlflowClient().log_metric(run_id, key, value, step=99)


def again_at_the_last_step(run_id: str) -> None:
    MlflowClient().log_metric(run_id, KEYS[2], 5.0, timestamp=2**42, step=3)


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("add", [later, again_at_the_last_step, lambda run_id: later(run_id, math.nan)])
def test_a_key_to_which_more_was_logged_is_read_by_itself(add: Callable[[str], None], asked: list[str]) -> None:
    run_id = trained()
    add(run_id)
    found = tracking.history(run_id)
    assert asked == [KEYS[2]]
    assert repr(found) == key_by_key(run_id)


@pytest.mark.usefixtures("served")
def test_a_key_of_another_program_is_read_by_itself(asked: list[str]) -> None:
    run_id = trained()
    later(run_id, key="their/loss")
    assert tracking.history(run_id)["their/loss"] == {99: 9.0}
    assert asked == ["their/loss"]


def killed_after(step: int, run_id: str) -> None:
    """A process that goes on with a run and is killed after it has logged a step."""
    run = tracking.reopen_run(run_id, finished_too=True)
    run.__enter__()
    run._heartbeat.stop()
    run.metrics.log({KEYS[2]: 7.0}, step)
    run.metrics.flush()


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(("step", "one_by_one"), [(7, [KEYS[2]]), (1, list(KEYS))])
def test_the_file_of_a_killed_process_is_used_as_far_as_it_is_right(
    step: int, one_by_one: list[str], asked: list[str]
) -> None:
    """A row at an earlier step shows in no last row, so the file is not used at all."""
    run_id = trained(range(0, 6, 2))
    killed_after(step, run_id)
    asked.clear()
    found = tracking.history(run_id)
    assert asked == one_by_one
    assert found[KEYS[2]][step] == 7.0
    assert repr(found) == key_by_key(run_id)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def changed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 255
    file.write_bytes(bytes(content))


def of_other_rows(file: Path) -> None:
    rows = series_file.LoggedRows()
    rows.add(KEYS[0], 3, 3.0, 0)
    from nfa import content

    content.write_arrays(file, rows.arrays())


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("damage", [cut, changed, of_other_rows, Path.unlink])
def test_a_damaged_or_foreign_file_is_not_used_and_no_error(
    damage: Callable[[Path], None], asked: list[str], store: Store
) -> None:
    run_id = trained()
    damage(store.artifact(run_id, SERIES))
    assert repr(tracking.history(run_id)) == key_by_key(run_id)
    assert asked[: len(KEYS)] == list(KEYS)


def test_a_file_that_cannot_be_written_changes_nothing_about_the_end_of_a_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("nfa.content.write_arrays", full)
    run_id = trained()
    assert store.status(run_id) == "FINISHED"
    assert store.tags(run_id)["nfa.state"] == "finished"
    assert len(store.metrics(run_id)) == 24
    assert ROWS not in store.tags(run_id)


@pytest.mark.slow
def test_a_finished_run_is_read_through_a_server_without_asking_for_any_key(
    store: Store, asked: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = trained()
    with serving(store) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        mlflow.set_tracking_uri(server.address)
        experiment = str(MlflowClient().create_experiment("served"))
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
        ids = [before, trained()]
        found = tracking.histories(ids)
        assert asked == []
        assert {run_id: repr(of_run) for run_id, of_run in found.items()} == {one: key_by_key(one) for one in ids}
        assert "Downloading" not in capfd.readouterr().err
