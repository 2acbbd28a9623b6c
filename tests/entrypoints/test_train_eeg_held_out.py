"""Trainings whose val and test are whole recordings or unseen subjects: what they log, and that analyses read them."""

import csv
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nfa.registry import stored_runs
from nfa.registry.families.eeg import data
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.eeg.linear_baseline import linear_baseline
from nfa.registry.families.eeg.scores import score
from nfa.registry.families.eeg.simulated import Simulation, simulate
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.training.start import train
from tests.support.analyses import series
from tests.support.gradient_flow_runs import EEG, expected, flow_of, undrawn
from tests.support.prepared_recordings import save
from tests.support.stores import Store, used

SIZE = {**EEG, "subjects": 3, "stimuli": 3, "seconds": 24, "epochs": 1, "eval_every": 1}
WHAT = {"recordings": "whole recordings of training subjects", "subjects": "recordings of unseen subjects"}


def trained(store: Store, **options: Any) -> str:
    """Id of the run of a training in this process."""
    before = store.runs()
    with undrawn():
        train(TrainEEGConfig(**{**SIZE, **options}), Stopwatch())
    (run_id,) = (run_id for run_id in store.runs() if run_id not in before)
    return run_id


@dataclass(frozen=True)
class Held:
    """A run by how it holds out, and what it said."""

    split: str
    run_id: str
    said: str


@pytest.fixture(scope="module")
def made(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, dict[str, Held]]]:
    """A training of each kind, in the store that this process uses."""
    folder = tmp_path_factory.mktemp("held-out")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("NFA_CACHE", str(folder / "cache"))
        with used(empty_store.copy(folder / "store"), monkeypatch) as store:
            found = {}
            for split, options in (("recordings", {}), ("subjects", {"unseen": "population"})):
                with redirect_stdout(StringIO()) as said:
                    run_id = trained(store, split=split, run_name=split, **options)
                found[split] = Held(split, run_id, said.getvalue())
            yield store, found


@pytest.fixture
def own(made: tuple[Store, dict[str, Held]]) -> Store:
    return made[0]


@pytest.fixture(params=["recordings", "subjects"])
def held(request: pytest.FixtureRequest, made: tuple[Store, dict[str, Held]]) -> Held:
    return made[1][request.param]


def test_val_and_test_are_what_is_asked_for_and_say_so(held: Held, own: Store) -> None:
    what, stored = WHAT[held.split], own.json(held.run_id, "config.json")
    assert f"split  val = 3 {what}, test = 3 {what}; each recording is normalised by the training" in held.said
    assert stored["train"]["split"] == own.params(held.run_id)["split"] == held.split
    assert stored["data"]["held_out"] == {"val": {held.split: 3}, "test": {held.split: 3}}
    assert stored_runs.load_workload(held.run_id, device="cpu").data.split == held.split


def test_the_baseline_stands_beside_and_the_checkpoint_scores_as_logged(held: Held, own: Store) -> None:
    workload, found = stored_runs.load_workload(held.run_id, device="cpu"), series(own, held.run_id)
    baseline = linear_baseline(workload.data, window=workload.window)
    results = own.json(held.run_id, "results.json")
    assert results["test"]["baseline_recordings"] == pytest.approx(baseline.recordings["test"])
    assert len(results["test"]["recordings"]) == len(baseline.recordings["test"]) == 3
    (best,) = found["test/pearson"]
    assert found["test/baseline_pearson"][best] == pytest.approx(baseline.pearson_of("test"))
    model, _ = stored_runs.load_checkpoint(held.run_id, best, device="cpu")
    again = score(workload, model, "test", workload.ids("test"))
    assert again is not None
    assert again.pearson == pytest.approx(found["test/pearson"][best], abs=1e-6)


def test_unseen_subjects_are_named_and_have_the_mean_of_the_trained_vectors(
    made: tuple[Store, dict[str, Held]],
) -> None:
    store, run = made[0], made[1]["subjects"]
    stored = store.json(run.run_id, "config.json")["data"]
    assert (len(stored["subjects"]), len(stored["unseen_subjects"])) == (1, 2)
    unseen = ", ".join(stored["unseen_subjects"])
    assert f"notice  the subject vector of {unseen}, not in train, is that of {stored['subjects'][0]}" in run.said
    assert stored["normalised_by"].endswith("of an unseen subject by all training recordings")
    assert store.params(run.run_id)["unseen"] == "population"
    assert set(store.json(run.run_id, "results.json")["test"]["subjects"]) <= set(stored["unseen_subjects"])


def test_gradient_flow_of_such_a_run_is_that_of_the_reference(made: tuple[Store, dict[str, Held]]) -> None:
    store, run = made[0], made[1]["subjects"]
    found, values = series(store, flow_of(store, run.split, n=4)), expected(run.run_id, 1, 4)
    assert {key: found[key][1] for key in values} == pytest.approx(values, rel=1e-4)


def test_a_layout_with_whole_trials_for_val_and_test_is_trained_on(own: Store, tmp_path: Path) -> None:
    """As others prepare it: nothing says how val and test were held out."""
    folder = tmp_path / "trials"
    simulate(Simulation(subjects=2, stimuli=3, seconds=24, channels=4), tmp_path / "parts")
    for path in sorted((tmp_path / "parts").glob("train_-_*_-_eeg.npy")):
        stem = path.name.removesuffix("_-_eeg.npy")
        parts = [path.with_name(stem.replace("train", each, 1)) for each in data.SPLITS]
        whole = [np.concatenate([np.load(f"{part}_-_{kind}.npy") for part in parts]) for kind in ("eeg", "envelope")]
        save(folder, stem.replace("train", {"2": "val", "3": "test"}.get(stem[-1], "train"), 1), *whole)
    run_id = trained(own, data_dir=str(folder))
    stored = own.json(run_id, "config.json")
    assert (stored["train"]["split"], stored["data"]["parts"]) == ("recordings", {"train": 2, "val": 2, "test": 2})
    assert stored_runs.load_workload(run_id, device="cpu").data.digest() == stored["data"]["digest"]
    assert 0 in series(own, run_id)["val/pearson"]


def test_parts_in_pieces_are_one_recording_in_every_report(own: Store, tmp_path: Path) -> None:
    """Of a recording whose val a gap divides."""
    folder = tmp_path / "pieces"
    simulate(Simulation(subjects=1, stimuli=2, seconds=60, channels=4), folder)
    for kind in ("eeg", "envelope"):
        path = folder / f"val_-_sub-001_-_simulated-01_-_{kind}.npy"
        array = np.load(path)
        path.unlink()
        for k, rows in enumerate((slice(0, 300), slice(330, None)), 1):
            np.save(folder / f"val_-_sub-001_-_simulated-01+{k}of2_-_{kind}.npy", array[rows])
    run_id = trained(own, data_dir=str(folder))
    results = own.json(run_id, "results.json")
    assert results["val"]["windows"] == 300 // 128 + (768 - 330) // 128 + 768 // 128
    assert set(results["val"]["recordings"]) == {"sub-001_-_simulated-01", "sub-001_-_simulated-02"}
    text = own.artifact(run_id, "recordings.csv").read_text(encoding="utf-8")
    rows = [(row["split"], row["recording"]) for row in csv.DictReader(text.splitlines())]
    assert len(rows) == len(set(rows)) == 4
