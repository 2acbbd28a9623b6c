"""What a preparation refuses, and that it then leaves no file."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from nfa.errors import Refusal
from nfa.registry import cli
from tests.support.raw_recordings import NAME, RECORDINGS, given, mne_file, recorded_folder, save, signals
from tests.support.refusals import Refused, assert_refused_before_anything_heavy
from tests.support.stores import Store

FIRST = RECORDINGS[0]

start = cli.starter("prepare_eeg")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return recorded_folder(tmp_path / "recorded")


MNE_REFUSED = {
    "rate": ({"rate": 500.0}, {"eeg_rate": 250}, r"eeg_rate=250 with \S*eeg.fif\n  allowed: .* 500 Hz"),
    "no EEG": ({"kinds": ["misc", "stim"]}, {"eeg_rate": 0}, r"eeg.fif \(no EEG channel among misc, stim\)"),
}


@pytest.mark.parametrize("case", MNE_REFUSED)
def test_file_of_mne_that_does_not_fit_is_refused(case: str, store: Store, tmp_path: Path) -> None:
    made, asked, message = MNE_REFUSED[case]
    mne_file(tmp_path / "recorded", "sub-009_-_story", **made)  # type: ignore[arg-type]
    with pytest.raises(Refusal, match=message):
        start(given(tmp_path / "recorded", tmp_path / "out", **asked))
    assert store.runs() == []


def test_damaged_file_of_mne_is_refused(store: Store, tmp_path: Path) -> None:
    mne_file(tmp_path / "recorded", "sub-009_-_story")
    (tmp_path / "recorded/sub-009_-_story_-_eeg.fif").write_bytes(b"not EEG at all")
    with pytest.raises(Refusal, match=r"eeg.fif \((.|\n)*allowed: whole files"):
        start(given(tmp_path / "recorded", tmp_path / "out", eeg_rate=0))
    assert store.runs() == []


def test_without_mne_its_formats_are_refused_with_the_command_that_installs_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "sub-001_-_story_-_eeg.npy").rename(source / "sub-001_-_story_-_eeg.bdf")
    monkeypatch.setitem(sys.modules, "mne", None)
    with pytest.raises(Refusal, match=r"bdf without mne, which is not installed(.|\n)*pip install 'nfa\[eeg\]', or"):
        start(given(source, tmp_path / "out"))


HEADERS = {
    "no partner": (lambda f: (f / f"{FIRST}_-_envelope.npy").unlink(), rf"recorded: {FIRST}_-_eeg.npy without a match"),
    "no EEG": (lambda f: (f / f"{FIRST}_-_eeg.npy").unlink(), rf"{FIRST}_-_envelope.npy without a matching file"),
    "two": (lambda f: (f / f"{FIRST}_-_eeg.bdf").touch(), rf"{FIRST}_-_eeg.bdf beside {FIRST}_-_eeg.npy"),
    "no array": (lambda f: (f / f"{FIRST}_-_eeg.npy").write_bytes(b"?"), rf"{FIRST}_-_eeg.npy \("),
    "empty": (lambda f: (f / f"{FIRST}_-_eeg.npy").write_bytes(b""), rf"{FIRST}_-_eeg.npy \("),
    "cut short": (lambda f: os.truncate(f / f"{FIRST}_-_eeg.npy", 5000), rf"{FIRST}_-_eeg.npy \("),
    "objects": (lambda f: save(f, f"{FIRST}_-_eeg.npy", np.array([{}, {}])), rf"{FIRST}_-_eeg.npy \("),
    "words": (lambda f: save(f, f"{FIRST}_-_eeg.npy", np.array([["a"]])), r"eeg.npy \(<U1, shape \[1, 1\]\)"),
    "flat EEG": (lambda f: save(f, f"{FIRST}_-_eeg.npy", signals(0)[0][:, 0]), r"\(float64, shape \[5000\]\)"),
    "transposed": (
        lambda f: save(f, f"{FIRST}_-_eeg.npy", signals(0)[0].T),
        r"\[4, 5000\]: fewer samples than channels",
    ),
    "two envelopes": (lambda f: save(f, f"{FIRST}_-_envelope.npy", np.ones((2560, 2))), r"shape \[2560, 2\]\)"),
    "other length": (
        lambda f: save(f, f"{FIRST}_-_envelope.npy", np.ones(3000)),
        r"eeg.npy \(5000 samples at 250 Hz = 20.00 s\) with \S*envelope.npy \(3000 samples at 128 Hz = 23.44 s\)",
    ),
    "too short": (
        lambda f: [save(f, f"{FIRST}_-_{('eeg', 'envelope')[i]}.npy", signals(0, 5)[i]) for i in (0, 1)],
        r"story_-_eeg.npy \(5.00 s, of it 0.50 s for val\)",
    ),
    "channels": (
        lambda f: save(f, "sub-002_-_story_-_eeg.npy", signals(0)[0][:, :3]),
        r"sub-002_-_story_-_eeg.npy \(3 channels; differing: 3\)\n  allowed: the 4 channels of sub-001_-_story_-_eeg",
    ),
}
CONTENTS = {
    "nan": (lambda a: a.__setitem__((4999, 2), np.nan), r"tale_-_eeg.npy \(nan at sample 4999 of channel 2\)"),
    "constant": (
        lambda a: a.__setitem__(np.s_[:, 1], 0),
        r"tale_-_eeg.npy \(constant over the train part: channel 1\)",
    ),
}


@pytest.mark.parametrize("case", HEADERS)
def test_bad_file_is_refused_before_there_is_a_run(case: str, store: Store, source: Path, tmp_path: Path) -> None:
    damage, message = HEADERS[case]
    damage(source)
    with pytest.raises(Refusal, match=message):
        start(given(source, tmp_path / "out"))
    assert store.runs() == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", CONTENTS)
def test_bad_value_fails_the_run_and_leaves_no_file(case: str, store: Store, source: Path, tmp_path: Path) -> None:
    damage, message = CONTENTS[case]
    recorded = signals(1)[0]
    damage(recorded)
    save(source, f"{RECORDINGS[1]}_-_eeg.npy", recorded)
    with pytest.raises(Refusal, match=message):
        start(given(source, tmp_path / "out"))
    (run_id,) = store.runs()
    assert store.tags(run_id)["nfa.state"] == "failed"
    assert not (tmp_path / "out").exists()


ASKED = {
    "no source": ({"source": ""}, r"source=''"),
    "no target": ({"target": ""}, r"target=''"),
    "nowhere": ({"source": "nowhere"}, r"source=\S*nowhere \(No such file or directory\)"),
    "nothing there": ({"source": "."}, r"\(no recording in it\)"),
    "target is a file": ({"target": "file/below"}, r"target=\S*below \(\S*file is not a folder\)"),
    "target of too long a name": ({"target": "x" * 300}, r"target=\S*x+ \(File name too long\)"),
    "no rate": ({"eeg_rate": 0}, r"eeg.npy with eeg_rate=0(.|\n)*do: for example eeg_rate=1024"),
    "small rate": ({"envelope_rate": 0.5}, r"envelope_rate=0.5\n  allowed: 0, or 1 to 1000000 Hz"),
    "shares": ({"train_share": 0.9}, r"train_share=0.9 with val_share=0.1"),
    "share": ({"val_share": 0.0}, r"val_share=0.0\n  allowed: a number > 0 and < 1"),
    "crossed": ({"highpass": 8.0, "lowpass": 2.0}, r"highpass=8.0\n  allowed: a cut-off below lowpass=2.0"),
    "highpass": ({"highpass": 32.0}, r"highpass=32.0\n  allowed: a cut-off below 32.0 Hz, half of rate=64"),
    "gaps": ({"gaps": "join"}, r"gaps='join'\n  allowed: refuse, cut"),
    "split": ({"split": "stories"}, r"split='stories'\n  allowed: time, recordings, subjects"),
    "unseen": ({"unseen": "population"}, r"unseen=population with split=time\n(.|\n)*do: leave unseen out"),
    "few stimuli": ({"split": "recordings"}, r"split=recordings with 3 recordings of 2 subjects and 2 stimuli"),
    "few subjects": ({"split": "subjects"}, r"2 subjects and 2 stimuli\n  allowed: at least three subjects"),
    "channels": ({"channels": "0,Fp1"}, r"channels='0,Fp1' \(sub-001_-_story_-_eeg.npy has no 'Fp1'\)"),
    "all left out": ({"channels": "!*"}, r"eeg.npy \(no EEG channel among left out\)"),
    "lowpass": ({"lowpass": 125.0}, r"lowpass=125.0 for \S*eeg.npy at 250 Hz"),
}


@pytest.mark.parametrize("case", ASKED)
def test_bad_parameter_is_refused_before_there_is_a_run(case: str, store: Store, source: Path) -> None:
    changed, message = ASKED[case]
    Path("file").touch()
    with pytest.raises(Refusal, match=message):
        start(given(source, Path("out"), **changed))
    assert store.runs() == []
    assert not Path("out").exists()


@pytest.mark.usefixtures("store")
def test_folder_of_prepared_files_is_no_folder_of_recordings(source: Path, tmp_path: Path) -> None:
    start(given(source, tmp_path / "out"))
    with pytest.raises(Refusal, match="already prepared: pass the folder to train_eeg"):
        start(given(tmp_path / "out", tmp_path / "again"))


@pytest.mark.usefixtures("store")
def test_companions_of_a_format_are_no_recordings(source: Path, tmp_path: Path) -> None:
    for ending in ("vhdr", "eeg", "vmrk"):
        (source / f"{FIRST}_-_eeg.{ending}").touch()
    (source / f"{FIRST}_-_eeg.npy").unlink()
    pytest.importorskip("mne")
    with pytest.raises(Refusal, match=rf"{FIRST}_-_eeg.vhdr \("):
        start(given(source, tmp_path / "out"))


def test_full_disk_is_refused(store: Store, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nfa.registry.families.eeg.preparation.prepare_eeg.SPACE_MARGIN", 2**60)
    with pytest.raises(Refusal, match=r"MB free at(.|\n)*for the prepared files"):
        start(given(source, tmp_path / "out"))
    assert store.runs() == []


def test_refusals_are_one_message_in_a_process_that_has_loaded_nothing_heavy(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty := tmp_path / "empty").mkdir()
    assert_refused_before_anything_heavy(NAME, f"--source {source} --target out", f"{source}/{FIRST}_-_eeg.npy", empty)
    refused = Refused(NAME, monkeypatch, capsys)
    assert "source=''" in refused([])
    assert "did you mean --target?" in refused(["--targt", "x"])
