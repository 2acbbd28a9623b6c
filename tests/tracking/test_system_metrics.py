"""MLflow's system metrics: on request, in every run, out of every report, and never the reason why a run fails."""

import threading

import mlflow
import pytest
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor

from nfa.errors import NfaError
from nfa.registry import tracking
from nfa.registry.tracking import TrackedRun, system_metrics
from nfa.registry.tracking.system_metrics import SystemMetrics
from tests.support.stores import Store

CPU = "system/cpu_utilization_percentage"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")


def opened(parent: TrackedRun | None = None) -> TrackedRun:
    return tracking.open_run("train", "mlp", parent=parent)


def sampled(store: Store, run_id: str) -> list[int]:
    return [step for key, step, _ in store.metrics(run_id) if key == CPU]


def test_without_the_switch_nothing_is_sampled(store: Store) -> None:
    with opened() as run:
        pass
    assert store.metrics(run.run_id) == []


@pytest.mark.usefixtures("asked")
def test_parents_and_children_are_sampled_and_a_continued_run_goes_on_at_the_next_step(store: Store) -> None:
    def stop(run: TrackedRun) -> None:
        with run, opened(run) as child:
            assert sampled(store, child.run_id) == []
            ids.append(child.run_id)
            raise NfaError("stopped")

    ids: list[str] = []
    parent = opened()
    with pytest.raises(NfaError):
        stop(parent)
    with tracking.reopen_run(parent.run_id):
        pass
    assert sampled(store, parent.run_id) == [0, 1]
    assert sampled(store, ids[0]) == [0]


@pytest.mark.usefixtures("asked")
def test_reports_and_comparisons_do_not_see_them(store: Store) -> None:
    with opened() as run:
        run.metrics.log({"val/loss": 1.0}, 0)
    assert sampled(store, run.run_id) == [0]
    assert tracking.history(run.run_id) == {"val/loss": {0: 1.0}}
    assert [*tracking.history(run.run_id, [CPU])] == [CPU]


@pytest.mark.usefixtures("asked")
def test_a_sample_that_fails_is_said_and_the_run_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(_: CPUMonitor) -> None:
        raise RuntimeError("no such sensor")

    monkeypatch.setattr(CPUMonitor, "collect_metrics", broken)
    with opened() as run:
        run.metrics.log({"val/loss": 1.0}, 0)
    assert store.metrics(run.run_id) == [("val/loss", 0, 1.0)]
    assert store.tags(run.run_id)["nfa.state"] == "finished"
    assert "no more system metrics of this run: no such sensor" in "".join(capfd.readouterr())


@pytest.mark.usefixtures("asked")
def test_a_store_that_does_not_take_a_sample_is_not_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(SystemMetrics, "_write", lambda *_: answered.wait())
    monkeypatch.setattr(system_metrics, "PATIENCE", 0.01)
    with opened() as run:
        pass
    assert store.tags(run.run_id)["nfa.state"] == "finished"
    answered.set()


@pytest.mark.usefixtures("asked", "store")
def test_a_run_that_mlflow_samples_itself_is_not_sampled_twice() -> None:
    with mlflow.start_run(log_system_metrics=False) as active:
        sampling = SystemMetrics(tracking.find_run(active.info.run_id), lambda: None)
        sampling.start()
        sampling.stop()
    assert tracking.history(active.info.run_id, [CPU]) == {}
