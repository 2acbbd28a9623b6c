"""What `train_eeg` refuses: exit 2, one message, no run; and recordings that are odd and not refused."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nfa.errors import Refusal
from nfa.maths.bfloat16 import has_bfloat16_units
from nfa.parallel import World
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.registry import family_of
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.training import start as training
from tests.support.eeg_trainings import TINY, decode, recordings, tiny_eeg
from tests.support.prepared_recordings import save, signals, small, stem, write
from tests.support.processes import words
from tests.support.refusals import Refused, assert_refused_before_anything_heavy
from tests.support.stores import Store


@pytest.fixture
def refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """In an empty store."""
    assert store.runs() == []
    monkeypatch.setenv("NFA_CACHE", str(tmp_path / "cache"))
    return Refused("train_eeg", monkeypatch, capsys)


WORDS = {
    "even kernel": ({"conv_kernel_size": 6}, "conv_kernel_size=6", "an odd number", "conv_kernel_size=7"),
    "width and heads": ({"d_model": 10, "n_head": 4}, "d_model=10 with n_head=4", "multiple of n_head", "d_model=256"),
    "preset and switch": (
        {"preset": "v1", "use_mlp_head": "true"},
        "preset=v1 with use_mlp_head=True",
        "use_mlp_head=False, which is the preset's, or auto",
        "preset=custom",
    ),
    "preset and scale": (
        {"preset": "full", "gradient_scale": 3},
        "preset=full with gradient_scale=3.0",
        "gradient_scale=2.0",
        "preset=custom",
    ),
    "gate without residual": (
        {"preset": "custom", "use_gated_residual": "true", "use_residual": "false"},
        "use_gated_residual=true with use_residual=false",
        "only with a residual",
        "use_residual=true",
    ),
    "momentum of Adam": (
        {"optimizer": "adam", "momentum": 0.9},
        "momentum=0.9 with optimizer=adam",
        "momentum for sgd",
        "leave momentum out",
    ),
    "batch of processes": ({"batch_size": 5, "nproc": 2}, "batch_size=5 with nproc=2", "multiple of", "batch_size="),
    "long window": ({"window_seconds": 15.7}, "window_seconds=15.7", "", "window_seconds"),
    "short window": ({"window_seconds": 0.01}, "window_seconds=0.01 (1 samples)", "2 to 1000 samples", "=5"),
    "no boolean": ({"use_se": "yes"}, "use_se='yes'", "true, false", "use_se=true"),
    "number for a boolean": ({"use_llrd": "1"}, "use_llrd='1'", "true, false", "use_llrd=false"),
    "no dropout": ({"dropout": 1.0}, "dropout=1.0", "≥ 0 and < 1", "leave dropout out"),
    "no scale": ({"preset": "custom", "gradient_scale": 0}, "gradient_scale=0.0", "> 0", "leave gradient_scale out"),
    "unknown place": (
        {"gradient_scale_position": "after_gate"},
        "gradient_scale_position='after_gate'",
        "before_gate, before_head, before_stack",
        "gradient_scale_position=before_gate",
    ),
    "unknown preset": ({"preset": "v2"}, "preset='v2'", "v1, full, conservative, aggressive, custom", "preset=v1"),
    "unseen where nobody is": (
        {"unseen": "population"},
        "unseen=population with split=auto",
        "unseen with split=subjects",
        "leave unseen out",
    ),
    "too few to hold out": (
        {"split": "subjects"},
        "split=subjects with 4 recordings of 2 subjects and 2 stimuli",
        "at least three subjects",
        "split=time",
    ),
    "device": ({"device": "gpu"}, "device='gpu'", "auto, cpu", "device=auto"),
    "recordings too short": ({"seconds": 10, "window_seconds": 5}, "simulated", "320 samples (5 s) or longer", "mend"),
}


@pytest.mark.parametrize("case", WORDS)
def test_words_that_do_not_fit_are_refused(case: str, refused: Refused, store: Store) -> None:
    asked, got, allowed, remedy = WORDS[case]
    said = refused(tiny_eeg(**asked))
    assert got in said.split("  allowed: ")[0], said
    assert allowed in said.split("  allowed: ")[1].split("\n  do: ")[0], said
    assert remedy in said.split("\n  do: ")[1], said
    assert store.runs() == []


def test_words_are_refused_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    assert_refused_before_anything_heavy(
        "train_eeg", "--preset full --use_residual false", "preset=full with use_residual=False", tmp_path
    )


@pytest.mark.skipif(has_bfloat16_units(torch.device("cpu")), reason="this processor has bfloat16 units")
def test_bfloat16_without_units_for_it_is_refused(refused: Refused, store: Store) -> None:
    said = refused(tiny_eeg(precision="bfloat16"))
    assert "precision=bfloat16 on cpu" in said
    assert "do: precision=float32" in said
    assert store.runs() == []


# ---- recordings


WINDOW = {**TINY, "window_seconds": 0.5}
TRAIN, VAL = stem("train"), stem("val")


def spoil(folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    np.save(folder / f"{name}.npy", change(np.load(folder / f"{name}.npy")))


def without_a_number(array: np.ndarray) -> np.ndarray:
    array[5, 1] = np.nan
    return array


def without_variance(array: np.ndarray) -> np.ndarray:
    array[:, 2] = 3
    return array


def of_a_stranger(folder: Path) -> None:
    save(folder, stem("test", subject=9), *signals(np.random.default_rng(0), 90, 3))


FOLDERS = {
    "NaN": (lambda f: spoil(f, f"{VAL}_-_eeg", without_a_number), f"{VAL}_-_eeg.npy: "),
    "no variance": (
        lambda f: spoil(f, f"{TRAIN}_-_eeg", without_variance),
        "channel 2 (counted from 0) has no variance",
    ),
    "stranger": (of_a_stranger, "unknown subject sub-009, who has no train part"),
    "short": (
        lambda f: spoil(f, f"{VAL}_-_eeg", lambda a: a[:20]),
        "20 samples (0.3125 s), shorter than a window of 32",
    ),
    "no partner": (lambda f: (f / f"{VAL}_-_eeg.npy").unlink(), f"the matching file {VAL}_-_eeg.npy is missing"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_recordings_that_cannot_be_trained_on_are_refused(
    case: str, refused: Refused, store: Store, tmp_path: Path
) -> None:
    change, got = FOLDERS[case]
    write(tmp_path / "stories", small())
    change(tmp_path / "stories")
    said = refused(words(**WINDOW, data_dir=tmp_path / "stories"))
    assert got in said.split("  allowed: ")[0], said
    assert "correct or remove these files" in said
    assert store.runs() == []


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


def test_a_launcher_of_another_number_of_processes_is_refused(
    refused: Refused, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    said = refused(tiny_eeg(nproc=2))
    assert "nproc=2 in 1 process\n" in said
    assert "do: nproc=1, or no launcher" in said
    monkeypatch.setenv("WORLD_SIZE", "3")
    said = refused(tiny_eeg(nproc=3))
    assert "WORLD_SIZE=3 in the environment without MASTER_ADDR, MASTER_PORT" in said
    assert store.runs() == []


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
