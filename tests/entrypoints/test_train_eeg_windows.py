"""Windows that have no r, and windows that processes share."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from nfa.errors import Refusal
from nfa.parallel import World
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.registry import family_of
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.training import start as training
from tests.support.eeg_trainings import TINY, decode, recordings, tiny_eeg
from tests.support.stores import Store

# ---- recordings


def test_windows_without_an_r_are_counted_and_left_out(fresh: Store, tmp_path: Path) -> None:
    """A silent second window in val, a whole silent recording in test."""
    folder = tmp_path / "stories"
    for path in recordings().folder.glob("*.npy"):
        array = np.load(path)
        if path.name.startswith("val_-_sub-001_-_simulated-01_-_envelope"):
            array[128:256] = 0.7
        if path.name.startswith("test_-_sub-002_-_simulated-02_-_envelope"):
            array[:] = 0.7
        folder.mkdir(exist_ok=True)
        np.save(folder / path.name, array)
    ended = decode(fresh, tiny_eeg(data_dir=folder, epochs=1, eval_every=1))
    assert ended.code == 0, ended.output
    assert "4 of 16 windows have no r" in ended.output
    (run_id,) = fresh.runs()
    found = {(key, step): value for key, step, value in fresh.metrics(run_id)}
    assert all(math.isfinite(value) for value in found.values())
    assert [found["val/undefined_windows", epoch] for epoch in (0, 1)] == [1, 1]
    assert {value for (key, _), value in found.items() if key == "test/undefined_windows"} == {4}
    results = fresh.json(run_id, "results.json")
    assert (len(results["val"]["recordings"]), len(results["test"]["recordings"])) == (4, 3)
    assert results["test"]["pearson"] == pytest.approx(np.mean(list(results["test"]["recordings"].values())))
    rows = csv.DictReader(fresh.artifact(run_id, "recordings.csv").read_text(encoding="utf-8").splitlines())
    empty = [(row["split"], row["recording"]) for row in rows if not row["pearson"]]
    assert empty == [("test", "sub-002_-_simulated-02")]


# ---- processes


def test_each_process_needs_a_window_of_every_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 windows an epoch in batches of 8 leave 4."""
    monkeypatch.setenv("NFA_CACHE", str(tmp_path))
    config = TrainEEGConfig(**{**TINY, "nproc": 8, "batch_size": 8, "windows_per_recording": 3})
    with pytest.raises(Refusal, match=r"nproc=8 with 12 windows an epoch, of which the last batch has 4\n  allowed: "):
        training.prepared(family_of(config), config, Stopwatch())
    fits = TrainEEGConfig(**{**TINY, "nproc": 4, "batch_size": 8, "windows_per_recording": 3})
    assert training.prepared(family_of(fits), fits, Stopwatch()).config.nproc == 4


@pytest.mark.parametrize("size", [1, 4])
def test_the_processes_that_have_met_are_as_many_as_asked_for(size: int) -> None:
    with pytest.raises(Refusal, match=rf"nproc=2 in {size} process"):
        training.check_launch(2, World(0, size))
    training.check_launch(2, World(0, 2))
