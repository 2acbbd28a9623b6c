"""Puts this folder on the import path, so that tests find its helpers; hypothesis is neither timed nor random.

Fixtures: tracking stores, and runs that many tests only look at.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import decoders
import pytest
import support
import torch
from hypothesis import settings
from stores import Finished, Store, used

settings.register_profile("nfa", deadline=None, derandomize=True, database=None)
settings.load_profile("nfa")

# Small products only wait for a second thread: fifty times slower where another program keeps a core busy.
os.environ["OMP_NUM_THREADS"] = "1"  # for programs that tests start
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store without runs, to be copied: making its tables takes seconds."""
    return support.new_store(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def store(empty_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store of this test's own, which this process uses."""
    with used(empty_store.copy(tmp_path / "store"), monkeypatch) as fresh:
        yield fresh


@pytest.fixture
def fresh(empty_store: Store, tmp_path: Path) -> Store:
    """An empty store of this test's own, for other processes."""
    return empty_store.copy(tmp_path / "store")


@pytest.fixture(scope="session")
def calls(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Calls of nfa's functions in the tiny training from start to end: every number up to it is a moment to stop at."""
    return support.counted_calls(empty_store.copy(tmp_path_factory.mktemp("counted") / "store"), support.tiny())


@pytest.fixture(scope="session")
def finished(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished tiny training, to be looked at and not changed."""
    return support.finished_run(empty_store.copy(tmp_path_factory.mktemp("finished") / "store"))


@pytest.fixture
def seen(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> Iterator[Finished]:
    """The same, in the store that this process uses."""
    with used(finished.store, monkeypatch):
        yield finished


@pytest.fixture
def changeable(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Finished]:
    """A copy of the finished training that may be changed, in the store that this process uses."""
    with used(finished.store.copy(tmp_path / "store"), monkeypatch) as own:
        yield Finished(own, finished.run_id)


@pytest.fixture(scope="session")
def decoded(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished tiny training on EEG, to be looked at and not changed; simulated recordings are kept beside it."""
    store = empty_store.copy(tmp_path_factory.mktemp("decoded") / "store")
    ended = decoders.decode(store, decoders.tiny_eeg(), pictures=True)
    assert ended.code == 0, ended.output
    return Finished(store, store.runs()[0])
