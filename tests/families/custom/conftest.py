"""Fixtures: a folder with a file that makes workloads, and a run that has trained one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stores import Finished, Once, Store, used
from tests.support.workload_files import imports, train_lab, write_lab


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    with imports():
        yield


@pytest.fixture
def lab(store: Store) -> Store:
    """The store that this process uses, beside my_lab.py in the folder where commands are typed."""
    write_lab(store.folder)
    return store


@pytest.fixture(scope="session")
def lab_run(empty_store: Store, once: Once) -> Finished:
    """A finished training of my_lab:make, to be copied and not changed."""

    def made(folder: Path) -> Finished:
        store = empty_store.copy(folder / "store")
        write_lab(store.folder)
        with pytest.MonkeyPatch.context() as monkeypatch, imports(), used(store, monkeypatch):
            return Finished(store, train_lab(store))

    return once("lab", made)


@pytest.fixture
def trained(lab_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Finished]:
    """A copy of it that may be changed, in the store that this process uses; my_lab.py lies beside it."""
    with used(lab_run.store.copy(tmp_path / "store"), monkeypatch) as store:
        yield Finished(store, lab_run.run_id)
