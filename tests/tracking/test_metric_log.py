"""Metric series: in batches, each (key, step) once, never NaN or infinite."""

import math
from collections.abc import Iterator

import pytest
from mlflow.tracking import MlflowClient

from nfa.registry.tracking.metrics import MetricLog, history, logged_rows
from nfa.registry.tracking.series_file import LoggedRows
from nfa.registry.tracking.store import client
from tests.support.stores import Store


@pytest.fixture
def run_id(store: Store) -> Iterator[str]:  # noqa: ARG001 - the store that is used
    return str(client().create_run("0").info.run_id)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that are written."""
    sizes: list[int] = []
    write = MlflowClient.log_batch

    def count(self: MlflowClient, run_id: str, metrics: list[object] = [], **rest: object) -> object:  # noqa: B006
        sizes.append(len(metrics))
        return write(self, run_id, metrics, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", count)
    return sizes


def test_values_arrive_with_key_step_and_value(run_id: str, store: Store) -> None:
    log = MetricLog(run_id, LoggedRows())
    log.log({"val/loss": 0.1 + 0.2, "layer_0/agop_nfm": 1e-300}, 3)
    log.flush()
    assert store.metrics(run_id) == [("layer_0/agop_nfm", 3, 1e-300), ("val/loss", 3, 0.1 + 0.2)]
    assert history(run_id) == {"layer_0/agop_nfm": {3: 1e-300}, "val/loss": {3: 0.1 + 0.2}}


def test_a_key_and_step_is_written_once_however_often_it_is_logged(run_id: str, store: Store) -> None:
    log = MetricLog(run_id, LoggedRows())
    for _ in range(3):
        log.log({"val/loss": 1.0}, 0)
        log.flush()
    log.log({"val/loss": 2.0}, 0)
    log.flush()
    assert store.metrics(run_id) == [("val/loss", 0, 1.0)]


def test_a_reopened_run_knows_what_it_has(run_id: str, store: Store) -> None:
    first = MetricLog(run_id, LoggedRows())
    for step in range(3):
        first.log({"val/loss": float(step)}, step)
    first.flush()
    again = MetricLog(run_id, logged_rows(run_id))
    for step in range(5):
        again.log({"val/loss": float(step), "train/loss": 1.0}, step)
    again.flush()
    assert [row[1] for row in store.metrics(run_id) if row[0] == "val/loss"] == [0, 1, 2, 3, 4]
    assert len(store.metrics(run_id)) == 10


def test_many_values_are_written_in_few_calls(run_id: str, store: Store, calls: list[int]) -> None:
    log = MetricLog(run_id, LoggedRows())
    for step in range(30):
        log.log({f"layer_{index}/agop_nfm": 0.5 for index in range(50)}, step)
    log.flush()
    assert len(store.metrics(run_id)) == 1500
    assert len(calls) <= 4
    assert max(calls) <= 1000


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_undefined_values_are_refused_and_nothing_of_them_is_written(value: float, run_id: str, store: Store) -> None:
    log = MetricLog(run_id, LoggedRows())
    with pytest.raises(ValueError, match=r"layer_1/agop_nfm at step 7 is .*undefined values are left out"):
        log.log({"layer_1/agop_nfm": value}, 7)
    log.flush()
    assert store.metrics(run_id) == []


def test_the_same_key_and_step_may_be_logged_by_another_run(run_id: str, store: Store) -> None:
    other = str(client().create_run("0").info.run_id)
    for one in (run_id, other):
        log = MetricLog(one, LoggedRows())
        log.log({"val/loss": 1.0}, 0)
        log.flush()
    assert store.metrics(run_id) == store.metrics(other) == [("val/loss", 0, 1.0)]


def test_long_series_are_read_whole(run_id: str) -> None:
    log = MetricLog(run_id, LoggedRows())
    for step in range(3000):
        log.log({"val/loss": float(step)}, step)
    log.flush()
    assert history(run_id)["val/loss"] == {step: float(step) for step in range(3000)}
