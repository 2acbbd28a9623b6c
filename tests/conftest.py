"""Fixtures: tracking stores, and runs that many tests only look at. Hypothesis is neither timed nor random."""

import gc
import os
import pickle
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

from tests.support.stores import Finished, Once, Store, used, write_without_sync

settings.register_profile("nfa", deadline=None, derandomize=True, database=None)
settings.load_profile("nfa")

# Small products only wait for a second thread: fifty times slower where another program keeps a core busy.
os.environ["OMP_NUM_THREADS"] = "1"  # for programs that tests start
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before anything imports MLflow

# Files of tests that take longest, in this order first: the last ones of a session have to be short.
LONG = (
    "entrypoints/test_train_ends.py",
    "entrypoints/test_lora_experiment.py",
    "entrypoints/test_ablate_eeg.py",
    "entrypoints/test_mlflow_run.py",
    "workloads/test_language_values.py",
    "entrypoints/",
    "test_watching.py",
    "maths/test_gram_bootstrap.py",
    "figures/",
    "test_examples.py",
    "test_layers.py",
    "test_training.py",
    "test_huggingface.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """pytest-xdist takes files in the order of `pytest_collection_modifyitems`, not those with most tests first."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, and then those with most tests."""
    here, sizes = Path(__file__).parent, Counter(item.path for item in items)

    def place(item: pytest.Item) -> tuple[int, int]:
        file = item.path.relative_to(here).as_posix() if here in item.path.parents else ""
        return next((i for i, name in enumerate(LONG) if file.startswith(name)), len(LONG)), -sizes[item.path]

    items.sort(key=place)


def pytest_collection_finish() -> None:
    gc.set_threshold(20_000, 20, 20)  # rarely; and collections pass over what the tests make only
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _quick() -> None:
    """One thread, and stores that do not wait for the disk."""
    import torch

    write_without_sync()
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """What `make` returns for a new folder: called by the first process of the session that asks for this name."""
    own = tmp_path_factory.getbasetemp()
    common = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def made(name: str, make: Callable[[Path], Any]) -> Any:
        folder, kept = common / f"once-{name}", common / f"once-{name}.pickle"
        with FileLock(f"{folder}.lock"):
            if not kept.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of one that failed
                folder.mkdir()
                kept.write_bytes(pickle.dumps(make(folder)))
            return pickle.loads(kept.read_bytes())

    return made


@pytest.fixture(scope="session")
def empty_store(once: Once) -> Store:
    """A store without runs, to be copied: making its tables takes seconds."""
    from tests.support import tiny_runs

    return once("empty", tiny_runs.new_store)


@pytest.fixture
def store(empty_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store of this test's own, which this process uses."""
    with used(empty_store.copy(tmp_path / "store"), monkeypatch) as fresh:
        yield fresh


@pytest.fixture
def run(store: Store) -> Iterator[Store]:
    """The store in which this process has an active run; nothing is drawn."""
    import mlflow

    from tests.support.analyses import undrawn

    with undrawn(), mlflow.start_run():
        yield store


@pytest.fixture
def no_accelerator() -> Iterator[None]:
    """accelerate knows of no Accelerator before and after: it remembers the first one of a process."""
    from accelerate.state import AcceleratorState, GradientState

    def forget() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    forget()
    yield
    forget()


@pytest.fixture
def fresh(empty_store: Store, tmp_path: Path) -> Store:
    """An empty store of this test's own, for other processes."""
    return empty_store.copy(tmp_path / "store")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which processes that this one forks have their temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture(scope="session")
def calls(empty_store: Store, once: Once) -> int:
    """Calls of nfa's functions in the tiny training from start to end: every number up to it is a moment to stop at."""
    from tests.support import fault_injection, tiny_runs

    def count(folder: Path) -> int:
        return fault_injection.counted_calls(empty_store.copy(folder / "store"), tiny_runs.tiny())

    return once("calls", count)


@pytest.fixture(scope="session")
def finished(empty_store: Store, once: Once) -> Finished:
    """A finished tiny training, to be looked at and not changed."""
    from tests.support import tiny_runs

    return once("finished", lambda folder: tiny_runs.finished_run(empty_store.copy(folder / "store")))


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
def decoded(empty_store: Store, once: Once) -> Finished:
    """A finished tiny training on EEG, to be looked at and not changed; simulated recordings are kept beside it."""
    from tests.support import eeg_trainings

    return once("decoded", lambda folder: eeg_trainings.decoded_run(empty_store.copy(folder / "store")))
