"""The tiny training of most tests, in processes of its own, and what it leaves."""

import os
from pathlib import Path
from typing import Any

from tests.support.processes import FORKSERVER, environment_of_tests, run, serve, settle, words
from tests.support.stores import Family, Finished, Store, family_in

OPTIMIZERS = ["sgd", "adam", "muon"]
TINY = {"width": 8, "depth": 2, "epochs": 4, "schedule": "0-2,4", "batch_size": 64}


def tiny(**parameters: Any) -> list[str]:
    """Words for the tiny training, changed where given."""
    return words(**{**TINY, **parameters})


def new_store(folder: Path) -> Store:
    """An empty store with MLflow's default experiment."""
    serve()
    env = {**environment_of_tests(), "MLFLOW_TRACKING_URI": Store(folder).uri}
    process = FORKSERVER.Process(target=_make_tables, args=(str(folder), env))
    process.start()
    process.join()
    assert process.exitcode == 0
    return Store(folder)


def _make_tables(folder: str, env: dict[str, str]) -> None:
    from mlflow import MlflowClient

    settle(folder, env, os.devnull)
    MlflowClient().search_experiments()


def finished_run(store: Store) -> Finished:
    ended = run(store, tiny(), pictures=True)
    assert ended.code == 0, ended.output
    return Finished(store, store.runs()[0])


def trained_family(store: Store, *, pictures: bool = False, **parameters: Any) -> Family:
    """Of a tiny training with every optimizer."""
    ended = run(store, tiny(optimizer="all", **parameters), pictures=pictures)
    assert ended.code == 0, ended.output
    return family_in(store)
