"""Held-out recordings and subjects: what normalises them, who they are, what is refused; and parts in pieces."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nfa.errors import Refusal
from nfa.registry.families.eeg import data as eeg
from nfa.seeding import generator
from tests.support.prepared_recordings import save, signals, write

WINDOW = 32
HELD = {("train", 1, 1): 401, ("train", 1, 2): 233, ("val", 1, 3): 99, ("test", 1, 4): 90, ("train", 2, 1): 300}
UNSEEN = {("train", 1, 1): 401, ("train", 2, 1): 233, ("train", 2, 2): 99, ("val", 3, 1): 5000, ("test", 4, 1): 88}
UNSEEN |= {("val", 3, 2): 70, ("test", 4, 2): 97}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("NFA_CACHE", str(tmp_path_factory.mktemp("cache")))


def part_of(data: eeg.EEGData, split: str, name: str) -> eeg.RecordingPart:
    (part,) = (part for part in data.of(split) if f"{part.subject}_-_{part.stimulus}" == name)
    return part


def assert_normalised(data: eeg.EEGData, split: str, name: str, raw: dict, basis: list[np.ndarray], kind: int) -> None:
    """By mean and deviation of a basis, the textbook way."""
    joined = np.concatenate([each.astype(float) for each in basis])
    found = data.arrays(part_of(data, split, name))[kind]
    expected = (raw[f"{split}_-_{name}"][kind].astype(float) - joined.mean(axis=0)) / joined.std(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


# ---- whole recordings


@pytest.mark.parametrize("split", ["auto", "recordings"])
def test_held_out_recordings_are_normalised_by_the_training_recordings_of_their_subject(tmp_path: Path, split: str):
    raw = write(tmp_path, HELD)
    data = eeg.load(tmp_path, window=WINDOW, split=split)
    assert data.split == "recordings"
    assert data.normalised_by() == "the training recordings of its subject"
    assert [dict(data.held_out(each)) for each in ("val", "test")] == [{"recordings": 1}] * 2
    for kind in (0, 1):
        basis = [raw[f"train_-_sub-001_-_story-{k}"][kind] for k in (1, 2)]
        for into, k in (("train", 1), ("train", 2), ("val", 3), ("test", 4)):
            assert_normalised(data, into, f"sub-001_-_story-{k}", raw, basis, kind)
        assert_normalised(data, "train", "sub-002_-_story-1", raw, [raw["train_-_sub-002_-_story-1"][kind]], kind)


def test_recordings_of_which_some_are_parts_and_some_whole_are_told_apart(tmp_path: Path):
    write(tmp_path, {**HELD, ("val", 1, 1): 64})
    data = eeg.load(tmp_path, window=WINDOW)
    assert (data.split, dict(data.held_out("val"))) == ("recordings", {"time": 1, "recordings": 1})


def test_what_normalises_need_not_vary_in_every_recording(tmp_path: Path):
    """A channel that is constant in one training recording, and one in all."""
    raw = write(tmp_path, HELD)
    flat, other = (raw[f"train_-_sub-001_-_story-{k}"][0].copy() for k in (1, 2))
    flat[:, 1] = 7
    save(tmp_path, "train_-_sub-001_-_story-1", flat, None)
    data = eeg.load(tmp_path, window=WINDOW)
    assert all(np.isfinite(data.arrays(part)[0]).all() for part in data.parts)
    other[:, 1] = 7
    save(tmp_path, "train_-_sub-001_-_story-2", other, None)
    with pytest.raises(Refusal, match=r"train_-_sub-001_-_story-1_-_eeg.npy: channel 1 \(counted from 0\) has no var"):
        eeg.load(tmp_path, window=WINDOW)


# ---- unseen subjects


@pytest.mark.parametrize("unseen", ["first_minute", "population"])
def test_an_unseen_subject_is_normalised_by_its_first_minute_or_by_all_training_recordings(tmp_path: Path, unseen: str):
    raw = write(tmp_path, UNSEEN)
    data = eeg.load(tmp_path, window=WINDOW, split="subjects", unseen=unseen)
    assert (data.subjects, data.unseen_subjects()) == (("sub-001", "sub-002"), ("sub-003", "sub-004"))
    assert {"first_minute": "first minute", "population": "all training"}[unseen] in data.normalised_by()
    trained = [f"train_-_sub-00{s}_-_story-{k}" for s, k in ((1, 1), (2, 1), (2, 2))]
    for kind in (0, 1):
        for split, subject in (("val", 3), ("test", 4)):
            minute = [raw[f"{split}_-_sub-00{subject}_-_story-1"][kind][: 60 * 64]]
            basis = minute if unseen == "first_minute" else [raw[name][kind] for name in trained]
            for k in (1, 2):
                assert_normalised(data, split, f"sub-00{subject}_-_story-{k}", raw, basis, kind)
        assert_normalised(data, "train", "sub-002_-_story-2", raw, [raw[name][kind] for name in trained[1:]], kind)


def test_an_unseen_subject_has_no_index_of_its_own(tmp_path: Path):
    write(tmp_path, UNSEEN)
    data = eeg.load(tmp_path, window=WINDOW, split="subjects")
    ids = [part.first for part in data.parts]
    found = data.windows(ids, WINDOW).subjects
    assert found.tolist() == [0, 1, 1, -1, -1, -1, -1]


# ---- refusals

REFUSED = {
    "unknown subject": (UNSEEN, "auto", "val_-_sub-003_-_story-1_-_eeg.npy: unknown subject sub-003, who"),
    "unknown subject, recordings": (UNSEEN, "recordings", "unknown subject sub-004, who has no train part"),
    "whole recordings": (HELD, "time", "test_-_sub-001_-_story-4_-_eeg.npy: the recording has no train part"),
    "nobody unseen": (HELD, "subjects", "split=subjects: all subjects of val and test also have train parts"),
    "nothing whole": (
        {(split, 1, 1): 99 for split in eeg.SPLITS},
        "recordings",
        "split=recordings: all recordings of val and test also have train parts",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_is_not_as_it_is_said_to_be_is_refused(case: str, tmp_path: Path):
    lengths, split, said = REFUSED[case]
    write(tmp_path, lengths)
    with pytest.raises(Refusal) as refused:
        eeg.load(tmp_path, window=WINDOW, split=split)
    assert said in str(refused.value)
    assert "split=recordings allows recordings without a train part, split=subjects subjects" in str(refused.value)


def test_a_first_minute_that_does_not_vary_is_refused(tmp_path: Path):
    raw = write(tmp_path, UNSEEN)
    quiet = raw["val_-_sub-003_-_story-1"][0].copy()
    quiet[:3840, 2] = 1.5
    save(tmp_path, "val_-_sub-003_-_story-1", quiet, None)
    assert eeg.load(tmp_path, window=WINDOW, split="subjects", unseen="population").channels == 3
    with pytest.raises(Refusal, match=r"val_-_sub-003_-_story-1_-_eeg.npy: channel 2 .* has no variance"):
        eeg.load(tmp_path, window=WINDOW, split="subjects")


# ---- pieces of a part


def pieces(folder: Path) -> dict[str, np.ndarray]:
    """A recording whose train part a gap divides, and one without a gap; the EEG by name."""
    random, written = np.random.default_rng(0), {}
    lengths = {"train_-_s1_-_a+1of2": 70, "train_-_s1_-_a+2of2": 41, "val_-_s1_-_a": 50, "test_-_s1_-_a": 40}
    for name, length in {**lengths, "train_-_s1_-_b": 64, "val_-_s1_-_b": 40, "test_-_s1_-_b": 40}.items():
        both = signals(random, length, 3)
        save(folder, name, *both)
        written[name] = both[0]
    return written


def test_pieces_of_a_part_are_one_recording_normalised_together(tmp_path: Path):
    raw = pieces(tmp_path)
    data = eeg.load(tmp_path, window=WINDOW)
    assert data.split == "time"
    assert {name: len(parts) for name, parts in data.recordings("train").items()} == {"s1_-_a": 2, "s1_-_b": 1}
    joined = np.concatenate([raw[f"train_-_s1_-_a+{k}of2"] for k in (1, 2)]).astype(float)
    for split, name in (("train", "a+1of2"), ("train", "a+2of2"), ("val", "a")):
        found = data.arrays(part_of(data, split, f"s1_-_{name}"))[0]
        expected = (raw[f"{split}_-_s1_-_{name}"].astype(float) - joined.mean(axis=0)) / joined.std(axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_no_window_goes_across_a_gap_and_all_starts_of_a_recording_are_as_likely(tmp_path: Path):
    pieces(tmp_path)
    data = eeg.load(tmp_path, window=WINDOW)
    drawn = data.draw(WINDOW, 9800, generator(0, "order/1"))
    assert len(drawn) == 2 * 9800  # as many of each recording
    first, second, other = data.of("train")
    allowed = [*range(first.first, first.first + 39), *range(second.first, second.first + 10)]
    counts = torch.bincount(drawn[:9800])[allowed]
    assert int(counts.sum()) == 9800
    assert (counts - 200).abs().max() < 5 * np.sqrt(200)
    assert {part.recording for part in data.part_of(drawn[9800:])} == {other.recording}
    assert data.ids("train", WINDOW) == [first.first, first.first + 32, second.first, other.first, other.first + 32]


def test_a_piece_shorter_than_a_window_holds_none_and_stops_nobody(tmp_path: Path):
    pieces(tmp_path)
    short = signals(np.random.default_rng(1), WINDOW - 1, 3)
    save(tmp_path, "train_-_s1_-_b+1of2", *short)
    for kind in ("eeg", "envelope"):
        (tmp_path / f"train_-_s1_-_b_-_{kind}.npy").rename(tmp_path / f"train_-_s1_-_b+2of2_-_{kind}.npy")
    data = eeg.load(tmp_path, window=WINDOW)
    brief, long = data.recordings("train")["s1_-_b"]
    starts = {*range(long.first, long.first + 64 - WINDOW + 1)}
    assert {*data.draw(WINDOW, 900, generator(0, "order/1"))[900:].tolist()} == starts
    assert brief.first not in data.ids("train", WINDOW)
    assert {long.first, long.first + WINDOW} <= {*data.ids("train", WINDOW)}


def test_a_part_that_holds_no_window_in_any_piece_is_refused(tmp_path: Path):
    pieces(tmp_path)
    with pytest.raises(Refusal) as refused:
        eeg.load(tmp_path, window=60)
    said = str(refused.value)
    assert "train_-_s1_-_a" not in said, "its first piece holds one"
    assert "val_-_s1_-_a_-_eeg.npy: 50 samples (0.78125 s), shorter than a window of 60" in said
