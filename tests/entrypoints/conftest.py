"""Fixtures: trainings whose gradients several files analyse."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import fine_tunings, gradient_flow_runs
from tests.support.gradient_direction_runs import Trained, train_all
from tests.support.stores import Once, Store, used


@pytest.fixture(scope="session")
def trained_runs(empty_store: Store, once: Once) -> Trained:
    """To be copied, and not changed."""

    def train(folder: Path) -> Trained:
        store = empty_store.copy(folder / "store")
        with pytest.MonkeyPatch.context() as monkeypatch, used(store, monkeypatch):
            train_all()
        return Trained(store, store.named())

    return once("runs", train)


@pytest.fixture
def runs(trained_runs: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trained]:
    """A copy that may be changed, in the store that this process uses."""
    with used(trained_runs.store.copy(tmp_path / "store"), monkeypatch) as store:
        yield Trained(store, trained_runs.ids)


@pytest.fixture(scope="session")
def trained_flows(empty_store: Store, once: Once) -> Trained:
    """Runs whose gradient flow is analysed: to be copied, and not changed; simulated recordings are kept with them."""

    def train(folder: Path) -> Trained:
        store = empty_store.copy(folder / "store")
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("NFA_CACHE", str(folder / "cache"))
            with used(store, monkeypatch):
                gradient_flow_runs.train_all()
        return Trained(store, store.named())

    return once("flows", train)


@pytest.fixture
def flows(trained_flows: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trained]:
    """A copy that may be changed, in the store that this process uses."""
    monkeypatch.setenv("NFA_CACHE", str(trained_flows.store.folder.parent / "cache"))
    with used(trained_flows.store.copy(tmp_path / "store"), monkeypatch) as store:
        yield Trained(store, trained_flows.ids)


@pytest.fixture(scope="session")
def arms(empty_store: Store, once: Once) -> fine_tunings.Arms:
    """Finished fine-tunings of every start, to be looked at and not changed; base and questions lie beside them."""

    def train(folder: Path) -> fine_tunings.Arms:
        place = fine_tunings.Place.made(folder / "place")
        return fine_tunings.train_arms(empty_store.copy(folder / "store"), place)

    return once("arms", train)
