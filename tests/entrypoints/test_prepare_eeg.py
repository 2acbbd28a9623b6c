"""Recordings in a folder become the files that train_eeg reads, in a tracked run; all of them or none."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from moments import TERM, During
from recorded import (
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
from stores import Store
from support import run, words

from entrypoints.prepare_eeg import start
from nfa.data import eeg
from nfa.data.eeg_preparation import SPLITS, prepare_arrays
from nfa.errors import Refusal


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
    arrays = prepare_arrays(*signals(1), eeg_rate=EEG_RATE, envelope_rate=ENVELOPE_RATE)
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
    expected = prepare_arrays(recorded, signals(7)[1], eeg_rate=EEG_RATE, envelope_rate=ENVELOPE_RATE)
    for split in SPLITS:
        for kind, array in zip(("eeg", "envelope"), expected[split], strict=True):
            found = np.load(tmp_path / "out" / f"{split}_-_sub-009_-_story_-_{kind}.npy")
            np.testing.assert_allclose(found, array, atol=1e-6)
    (run_id,) = store.runs()
    report = store.json(run_id, "preparation.json")["recordings"]["sub-009_-_story"]
    assert report["eeg"]["channels"] == ["eeg0", "eeg2", "eeg4", "eeg5"]


def test_stopped_in_the_midst_it_leaves_no_file(fresh: Store, source: Path, tmp_path: Path) -> None:
    asked = words(source=source, target=tmp_path / "out", eeg_rate=EEG_RATE, envelope_rate=ENVELOPE_RATE)
    ended = run(fresh, asked, entrypoint=NAME, before=During("nfa.jobs.eeg.prepare_eeg", "write", TERM, 3))
    assert ended.code == 143, ended.output
    assert "Traceback" not in ended.output
    (run_id,) = fresh.runs()
    assert fresh.tags(run_id)["nfa.state"] == "killed"
    assert names(tmp_path / "out") == []
    assert run(fresh, asked, entrypoint=NAME).code == 0
    assert len(names(tmp_path / "out")) == 18
