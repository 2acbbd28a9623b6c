"""Recordings in a folder become the files that train_eeg reads, in a tracked run; all of them or none."""

import hashlib
import itertools
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nfa.errors import Refusal
from nfa.registry import cli
from nfa.registry.families.eeg import data as eeg
from nfa.registry.families.eeg.layout import SPLITS
from nfa.registry.families.eeg.preparation.filters import resample
from tests.support.eeg_file_formats import edf
from tests.support.fault_injection import KILL, TERM, During
from tests.support.prepared_recordings import prepared_in_memory
from tests.support.processes import run, words
from tests.support.raw_recordings import (
    CHANNELS,
    EEG_RATE,
    ENVELOPE_RATE,
    NAME,
    RECORDINGS,
    SECONDS,
    given,
    mne_file,
    names,
    recorded_folder,
    save,
    signals,
)
from tests.support.stores import Store

start = cli.starter("prepare_eeg")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return recorded_folder(tmp_path / "recorded")


@pytest.mark.usefixtures("store")
def test_prepared_folder_holds_every_part_and_the_reader_reads_it(source: Path, tmp_path: Path) -> None:
    start(given(source, tmp_path / "a/b", run_name="preparing"))
    kinds = ("eeg", "envelope")
    expected = [f"{split}_-_{name}_-_{kind}.npy" for split in SPLITS for name in RECORDINGS for kind in kinds]
    assert names(tmp_path / "a/b") == sorted(expected)
    read = eeg.load(tmp_path / "a/b", window=64)
    assert (read.channels, read.subjects) == (CHANNELS, ("sub-001", "sub-002"))
    arrays = prepared_in_memory(*signals(1), eeg_rate=EEG_RATE, envelope_rate=ENVELOPE_RATE)
    for split in SPLITS:
        (part,) = (part for part in read.of(split) if part.recording == RECORDINGS[1])
        for made, found in zip(arrays[split], read.arrays(part), strict=True):
            np.testing.assert_allclose(found, made, atol=1e-6)
        for made, path in zip(arrays[split], (part.eeg, part.envelope), strict=True):
            np.testing.assert_array_equal(np.load(path), made)


def test_run_says_what_was_made_of_what(store: Store, source: Path, tmp_path: Path) -> None:
    start(given(source, tmp_path / "out", run_name="preparing", highpass=0.5))
    run_id = store.named()["preparing"]
    tags, params = store.tags(run_id), store.params(run_id)
    assert (tags["nfa.entrypoint"], tags["nfa.workload"], tags["nfa.state"]) == (NAME, "eeg", "finished")
    assert (params["highpass"], params["train_share"], params["rate"]) == ("0.5", "0.8", "64")
    report = store.json(run_id, "preparation.json")
    assert set(report["recordings"]) == set(RECORDINGS)
    assert report["settings"]["highpass"] == 0.5
    one = report["recordings"][RECORDINGS[0]]
    assert one["parts"] == {"train": [0, 1024], "val": [1024, 1152], "test": [1152, 1280]}
    assert (one["eeg"]["rate"], one["eeg"]["samples"]) == (EEG_RATE, SECONDS * EEG_RATE)
    assert (len(one["eeg"]["mean"]), len(one["envelope"]["deviation"])) == (CHANNELS, 1)
    files: dict[str, str] = {}
    for item in report["recordings"].values():
        files |= item["eeg"]["files"] | item["envelope"]["files"]
    for name, digest in files.items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest
    assert sorted(files) == names(tmp_path / "out")
    assert {split for (split,) in store.rows("SELECT value FROM input_tags")} == set(SPLITS)
    assert not store.artifact(run_id, "checkpoints").exists()


@pytest.mark.usefixtures("store")
def test_target_is_overwritten_only_when_asked(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    start(given(source, target))
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(Refusal, match=r"it holds test_-_sub-001_-_story_-_eeg.npy and 17 more\)(.|\n)*overwrite=true"):
        start(given(source, target, lowpass=20))
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    start(given(source, target, lowpass=20, overwrite=True))
    changed = {path.name for path in target.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {name for name in before if name.endswith("eeg.npy")}


@pytest.mark.usefixtures("store")
def test_a_recording_prepared_anew_for_another_split_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    studied(tmp_path / "recorded", 1, 3)
    start(given(tmp_path / "recorded", tmp_path / "out"))
    save(tmp_path / "out", "train_-_sub-009_-_story-1_-_eeg.npy", np.zeros((9, CHANNELS)))
    start(given(tmp_path / "recorded", tmp_path / "out", split="recordings", overwrite=True))
    assert len(names(tmp_path / "out")) == 2 * 3 + 1
    assert "train_-_sub-009_-_story-1_-_eeg.npy" in names(tmp_path / "out")


@pytest.mark.usefixtures("store")
def test_recordings_of_unequal_length_are_cut_with_one_notice(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(RECORDINGS[:2]):
        save(source, f"{name}_-_envelope.npy", signals(seed, SECONDS - 0.25 * (1 + seed))[1])
    start(given(source, tmp_path / "out"))
    said = capsys.readouterr().out
    assert said.count("notice") == 1
    assert "2 recordings cut to the shorter of EEG and envelope, by up to 0.500 s" in said
    parts = eeg.load(tmp_path / "out", window=64).parts
    lengths = [sum(part.samples for part in parts if part.recording == name) / 64 for name in RECORDINGS]
    assert lengths == [19.75, 19.5, 20.0]


@pytest.mark.parametrize("eeg_rate", [0, EEG_RATE])
def test_file_of_mne_gives_its_eeg_channels_and_its_rate(store: Store, tmp_path: Path, eeg_rate: float) -> None:
    recorded = mne_file(tmp_path / "recorded", "sub-009_-_story")
    start(given(tmp_path / "recorded", tmp_path / "out", eeg_rate=eeg_rate))
    expected = prepared_in_memory(recorded, signals(7)[1], eeg_rate=EEG_RATE, envelope_rate=ENVELOPE_RATE)
    for split in SPLITS:
        for kind, array in zip(("eeg", "envelope"), expected[split], strict=True):
            found = np.load(tmp_path / "out" / f"{split}_-_sub-009_-_story_-_{kind}.npy")
            np.testing.assert_allclose(found, array, atol=1e-6)
    (run_id,) = store.runs()
    report = store.json(run_id, "preparation.json")["recordings"]["sub-009_-_story"]
    assert report["eeg"]["channels"] == ["eeg0", "eeg2", "eeg4", "eeg5"]


# ---- held-out recordings and subjects


def prepared_eeg(folder: Path) -> dict[str, np.ndarray]:
    return {path.name.removesuffix("_-_eeg.npy"): np.load(path).astype(float) for path in folder.glob("*_-_eeg.npy")}


def studied(folder: Path, subjects: int, stimuli: int) -> dict[str, np.ndarray]:
    """A folder of recordings, each with an offset and a scale of its own; the EEG by name."""
    found = {}
    for subject, stimulus in itertools.product(range(1, subjects + 1), range(1, stimuli + 1)):
        name = f"sub-{subject:03d}_-_story-{stimulus}"
        recorded, envelope = signals(10 * subject + stimulus)
        found[name] = (1 + subject + stimulus / 10) * recorded + 5 * subject
        save(folder, f"{name}_-_eeg.npy", found[name])
        save(folder, f"{name}_-_envelope.npy", envelope)
    return found


def whole(recorded: np.ndarray) -> np.ndarray:
    """As it is without a split: resampled."""
    return resample(recorded, Fraction(EEG_RATE, 64), SECONDS * 64)


def assert_as(found: np.ndarray, recorded: np.ndarray, basis: list[np.ndarray]) -> None:
    joined = np.concatenate(basis)
    np.testing.assert_allclose(found, (whole(recorded) - joined.mean(axis=0)) / joined.std(axis=0), atol=2e-6)


def test_whole_recordings_are_held_out_normalised_by_those_of_their_subject(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = studied(tmp_path / "recorded", 2, 3)
    start(given(tmp_path / "recorded", tmp_path / "out", split="recordings"))
    found = prepared_eeg(tmp_path / "out")
    assert {name.partition("_-_")[2] for name in found} == {*recorded}
    assert sorted(name.split("_-_")[0] for name in found) == ["test"] * 2 + ["train"] * 2 + ["val"] * 2
    for name, array in found.items():
        _, subject, stimulus = name.split("_-_")
        trained = [each.partition("_-_")[2] for each in found if each.startswith(f"train_-_{subject}_-_")]
        basis = [whole(recorded[each]) for each in trained]
        assert_as(array, recorded[f"{subject}_-_{stimulus}"], basis)
    data = eeg.load(tmp_path / "out", window=64)
    assert data.split == "recordings"
    for part in data.parts:  # what is normalised stays as it is
        np.testing.assert_allclose(data.arrays(part)[0], np.load(part.eeg), atol=1e-5)
    said = capsys.readouterr().out
    assert "split  whole recordings: 2 train (story-" in said
    report = store.json(store.runs()[0], "preparation.json")
    assert (report["split"], report["normalised_by"]) == ("recordings", "the training recordings of its subject")
    assert report["recordings"]["sub-001_-_story-1"]["parts"].keys() < {"train", "val", "test"}


@pytest.mark.parametrize("unseen", ["first_minute", "population"])
@pytest.mark.usefixtures("store")
def test_whole_subjects_are_held_out_normalised_as_asked(tmp_path: Path, unseen: str) -> None:
    recorded = studied(tmp_path / "recorded", 3, 2)
    start(given(tmp_path / "recorded", tmp_path / "out", split="subjects", unseen=unseen))
    found = prepared_eeg(tmp_path / "out")
    known = {name.split("_-_")[1]: name.split("_-_")[0] for name in found}
    assert sorted(known.values()) == ["test", "train", "val"]
    trained = [whole(recorded[name.partition("_-_")[2]]) for name in found if name.startswith("train")]
    for subject, split in known.items():
        first = whole(recorded[f"{subject}_-_story-1"])[: 60 * 64]
        basis = [first] if split != "train" and unseen == "first_minute" else trained
        for k in (1, 2):
            assert_as(found[f"{split}_-_{subject}_-_story-{k}"], recorded[f"{subject}_-_story-{k}"], basis)
    data = eeg.load(tmp_path / "out", window=64, split="subjects", unseen=unseen)
    for part in data.parts:
        np.testing.assert_allclose(data.arrays(part)[0], np.load(part.eeg), atol=1e-5)


@pytest.mark.usefixtures("store")
def test_a_recording_is_cut_at_its_gap_and_its_parts_are_read_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mne")
    (tmp_path / "recorded").mkdir()
    signal = {name: 40 * np.random.default_rng(k).standard_normal(256 * 30) for k, name in enumerate(("Cz", "Resp"))}
    path = tmp_path / "recorded" / "sub-001_-_story_-_eeg.edf"
    edf(path, signal, onsets=[str(k) if k < 12 else f"{k}.5" for k in range(30)])
    save(tmp_path / "recorded", "sub-001_-_story_-_envelope.npy", np.random.default_rng(9).random(round(128 * 30.5)))
    with pytest.raises(Refusal, match=r"eeg.edf \(0.5 s are missing at 12.000 s, sample 3072 counted from 0\)"):
        start(given(tmp_path / "recorded", tmp_path / "out", eeg_rate=0))
    start(given(tmp_path / "recorded", tmp_path / "out", eeg_rate=0, gaps="cut"))
    said = capsys.readouterr().out
    assert "channels  1 used: Cz; not used: Resp (breathing by its name)" in said
    assert "notice  sub-001_-_story_-_eeg.edf: cut at its gaps, 0.5 s in all" in said
    data = eeg.load(tmp_path / "out", window=64)
    assert [(part.split, part.stimulus, part.samples) for part in data.parts] == [
        ("train", "story+1of2", 768),
        ("train", "story+2of2", 761),
        ("val", "story", 195),
        ("test", "story", 196),
    ]
    assert {part.recording for part in data.parts} == {"sub-001_-_story"}


def test_stopped_in_the_midst_it_leaves_no_file(fresh: Store, source: Path, tmp_path: Path) -> None:
    asked = words(source=source, target=tmp_path / "out", eeg_rate=EEG_RATE, envelope_rate=ENVELOPE_RATE)
    ended = run(
        fresh,
        asked,
        entrypoint=NAME,
        before=During("nfa.registry.families.eeg.preparation.prepare_eeg", "write", TERM, 3),
    )
    assert ended.code == 143, ended.output
    assert "Traceback" not in ended.output
    (run_id,) = fresh.runs()
    assert fresh.tags(run_id)["nfa.state"] == "killed"
    assert not (tmp_path / "out").exists()
    ended = run(
        fresh,
        asked,
        entrypoint=NAME,
        before=During("nfa.registry.families.eeg.preparation.prepare_eeg", "write", KILL, 3),
    )
    assert ended.code == -signal.SIGKILL
    assert run(fresh, asked, entrypoint=NAME).code == 0
    assert len(names(tmp_path / "out")) == 18
