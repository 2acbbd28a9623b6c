"""Fixtures: trainings whose gradients several files analyse."""

from collections.abc import Iterator
from pathlib import Path

import fine_tunings
import flow_runs
import pytest
from gradient_runs import Trained, train_all
from stores import Store, used


@pytest.fixture(scope="session")
def trained_runs(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """To be copied, and not changed."""
    store = empty_store.copy(tmp_path_factory.mktemp("runs") / "store")
    with pytest.MonkeyPatch.context() as monkeypatch, used(store, monkeypatch):
        train_all()
    return Trained(store, store.named())


@pytest.fixture
def runs(trained_runs: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trained]:
    """A copy that may be changed, in the store that this process uses."""
    with used(trained_runs.store.copy(tmp_path / "store"), monkeypatch) as store:
        yield Trained(store, trained_runs.ids)


@pytest.fixture(scope="session")
def trained_flows(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Runs whose gradient flow is analysed: to be copied, and not changed; simulated recordings are kept with them."""
    store = empty_store.copy(tmp_path_factory.mktemp("flows") / "store")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("NFA_CACHE", str(store.folder.parent / "cache"))
        with used(store, monkeypatch):
            flow_runs.train_all()
    return Trained(store, store.named())


@pytest.fixture
def flows(trained_flows: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trained]:
    """A copy that may be changed, in the store that this process uses."""
    monkeypatch.setenv("NFA_CACHE", str(trained_flows.store.folder.parent / "cache"))
    with used(trained_flows.store.copy(tmp_path / "store"), monkeypatch) as store:
        yield Trained(store, trained_flows.ids)


@pytest.fixture(scope="session")
def arms(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> fine_tunings.Arms:
    """Finished fine-tunings of every start, to be looked at and not changed; base and questions lie beside them."""
    folder = tmp_path_factory.mktemp("arms")
    return fine_tunings.train_arms(empty_store.copy(folder / "store"), fine_tunings.Place.made(folder / "place"))
