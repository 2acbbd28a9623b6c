"""Folders of recordings that cannot be used: every bad file is named, all in one message."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from nfa.errors import Refusal
from nfa.registry.families.eeg import data, recording_files
from tests.support.prepared_recordings import save, signals, small, stem, write

WINDOW = 32
TRAIN, VAL = stem("train"), stem("val")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("NFA_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A sound folder, to be spoilt."""
    write(tmp_path / "stories", small())
    return tmp_path / "stories"


def refusal(folder: Path, window: int = WINDOW, **how: str) -> str:
    with pytest.raises(Refusal) as refused:
        data.load(folder, window=window, **how)
    with pytest.raises(Refusal) as again:  # from the record
        data.load(folder, window=window, **how)
    assert str(again.value) == str(refused.value)
    return str(refused.value)


def only_fault(folder: Path, window: int = WINDOW, **how: str) -> str:
    message = refusal(folder, window, **how)
    found = re.search(r"stories: 1 fault\n    (.*)\n  allowed: ", message)
    assert found, message
    return found[1]


def only_fault_of(folder: Path, name: str, window: int = WINDOW, **how: str) -> str:
    """What is said of one file, the only one with a fault."""
    fault = only_fault(folder, window, **how)
    assert fault.startswith(f"{name}: "), fault
    return fault.removeprefix(f"{name}: ")


def change(folder: Path, name: str, array: np.ndarray) -> str:
    np.save(folder / f"{name}.npy", array)
    return f"{name}.npy"


def kept(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / f"{name}.npy")


# ---- folders


def test_a_folder_that_is_none_is_refused(folder):
    assert only_fault(folder / "stories") == f"{folder / 'stories'}: No such file or directory"


def test_a_folder_without_recordings_is_refused(tmp_path):
    (tmp_path / "stories").mkdir()
    (tmp_path / "stories" / "README.md").write_text("?")
    message = refusal(tmp_path / "stories")
    assert "no files of the layout" in message
    assert "{train|val|test}_-_SUBJECT_-_STIMULUS_-_{eeg|envelope}.npy" in message


@pytest.mark.parametrize("split", data.SPLITS)
def test_a_split_without_parts_is_named(folder, split):
    for path in folder.glob(f"{split}_-_*"):
        path.unlink()
    assert f"\n    {split}_-_*: no such files" in refusal(folder)


@pytest.mark.parametrize(
    "name",
    ["dev_-_sub-001_-_story-1", "train_-_sub-001", "train_-_sub-001_-_story-1_-_again", "train_-__-_story-1", "_-_"],
)
def test_names_that_nearly_fit_the_layout_are_named(folder, name):
    assert only_fault_of(folder, change(folder, f"{name}_-_eeg", np.zeros((9, 3)))).startswith("not SPLIT_-_SUBJECT")


# ---- pairs


@pytest.mark.parametrize(("kind", "partner"), [("eeg", "envelope"), ("envelope", "eeg")])
def test_a_missing_partner_is_named(folder, kind, partner):
    (folder / f"{VAL}_-_{partner}.npy").unlink()
    fault = only_fault_of(folder, f"{VAL}_-_{kind}.npy")
    assert fault == f"the matching file {VAL}_-_{partner}.npy is missing"


def test_other_lengths_are_named(folder):
    change(folder, f"{VAL}_-_envelope", np.random.default_rng(0).random((90, 1)))
    assert only_fault_of(folder, f"{VAL}_-_eeg.npy") == "105 samples, its envelope 90"


@pytest.mark.parametrize(
    ("eeg_samples", "envelope_samples", "ratio"),
    [(400, 200, "2"), (1600, 200, "8"), (200, 400, "2"), (200, 156, "1.28"), (150, 37_500, "250")],
)
def test_lengths_as_of_other_rates_say_so(folder, eeg_samples, envelope_samples, ratio):
    random = np.random.default_rng(0)
    save(folder, VAL, random.random((eeg_samples, 3)), random.random((envelope_samples, 1)))
    assert only_fault_of(folder, f"{VAL}_-_eeg.npy") == (
        f"{eeg_samples} samples, its envelope {envelope_samples}; the rates seem to differ by a factor {ratio}, "
        "but both must be 64 Hz"
    )


# ---- values


@pytest.mark.parametrize(("value", "said"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
@pytest.mark.parametrize("kind", ["eeg", "envelope"])
def test_values_that_are_not_finite_are_named_with_the_first_place(folder, monkeypatch, kind, value, said):
    monkeypatch.setattr(recording_files, "CHUNK_BYTES", 8 * 3 * 10)
    signal = kept(folder, f"{TRAIN}_-_{kind}")
    channel = signal.shape[1] - 1
    signal[57, channel] = signal[58, 0] = signal[200, 0] = value
    name = change(folder, f"{TRAIN}_-_{kind}", signal)
    assert only_fault_of(folder, name) == f"{said}, first at sample 57, channel {channel} (counted from 0)"


@pytest.mark.parametrize("kind", ["eeg", "envelope"])
def test_a_channel_without_variance_in_the_train_part_is_named(folder, kind):
    signal = kept(folder, f"{TRAIN}_-_{kind}")
    signal[:, -1] = 0.1
    name = change(folder, f"{TRAIN}_-_{kind}", signal)
    assert only_fault_of(folder, name).startswith(f"channel {signal.shape[1] - 1} (counted from 0) has no variance")


def test_a_constant_channel_in_another_part_is_no_fault(folder):
    signal = kept(folder, f"{VAL}_-_eeg")
    signal[:, 0] = 0.1
    change(folder, f"{VAL}_-_eeg", signal)
    assert data.load(folder, window=WINDOW).channels == 3


def test_values_whose_variance_overflows_are_named(folder):
    signal = kept(folder, f"{TRAIN}_-_eeg").astype(np.float64)
    signal[::2, 1] = 1e300
    assert "channel 1" in only_fault_of(folder, change(folder, f"{TRAIN}_-_eeg", signal))


# ---- shapes


def test_a_recording_shorter_than_a_window_is_named_in_samples_and_seconds(folder):
    save(folder, VAL, *signals(np.random.default_rng(0), 48, 3))
    assert data.load(folder, window=48).channels == 3
    message = refusal(folder, window=80)
    for kind in ("eeg", "envelope"):
        assert f"{VAL}_-_{kind}.npy: 48 samples (0.75 s), shorter than a window of 80 (1.25 s)" in message
    assert "80 samples (1.25 s) or longer" in message


def test_an_empty_recording_is_shorter_than_any_window(folder):
    save(folder, VAL, np.zeros((0, 3)), np.zeros((0, 1)))
    assert "0 samples (0 s), shorter than a window of 1 (" in refusal(folder, window=1)


def test_another_number_of_channels_than_the_others_have_is_named(folder):
    name = change(folder, f"{TRAIN}_-_eeg", kept(folder, f"{TRAIN}_-_eeg")[:, :2])
    assert only_fault_of(folder, name) == "2 channels; the other recordings have 3"


@pytest.mark.parametrize("shape", [(105, 2), (105, 3)])
def test_an_envelope_of_several_channels_is_named(folder, shape):
    name = change(folder, f"{VAL}_-_envelope", np.random.default_rng(0).random(shape))
    assert only_fault_of(folder, name) == f"shape {list(shape)}; [samples, 1] expected"


@pytest.mark.parametrize("shape", [(), (105,), (105, 0), (105, 3, 1)])
@pytest.mark.parametrize("kind", ["eeg", "envelope"])
def test_arrays_that_are_not_samples_by_channels_are_named(folder, kind, shape):
    name = change(folder, f"{VAL}_-_{kind}", np.ones(shape))
    assert only_fault_of(folder, name) == f"shape {list(shape)}; [samples, channels] expected"


@pytest.mark.parametrize("dtype", ["int16", "int64", "bool", "complex64", "longdouble", "U3", "f4,f4"])
def test_other_types_of_numbers_are_named(folder, dtype):
    name = change(folder, f"{VAL}_-_eeg", np.zeros((105, 3), dtype))
    assert only_fault_of(folder, name).endswith("float16, float32 or float64 expected")


# ---- files


class Sprung:
    """Creates a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_pickled_objects_are_refused_and_not_unpickled(folder, tmp_path):
    name = change(folder, f"{VAL}_-_eeg", np.array([[Sprung(str(tmp_path / "sprung"))]], dtype=object))
    assert only_fault_of(folder, name).startswith("not a complete npy file of numbers")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("keep", [0, 5, 60, 128, -1])
def test_a_file_that_is_cut_short_is_named(folder, keep):
    path = folder / f"{VAL}_-_eeg.npy"
    path.write_bytes(path.read_bytes()[:keep])
    assert only_fault_of(folder, path.name).startswith("not a complete npy file of numbers (")


def test_a_file_of_another_kind_is_named(folder):
    path = folder / f"{VAL}_-_eeg.npy"
    np.savez(path.with_suffix(""), np.zeros(3))
    path.with_suffix(".npz").replace(path)
    assert only_fault_of(folder, path.name).startswith("not a complete npy file of numbers (")


@pytest.mark.parametrize(
    ("put", "reason"),
    [(os.mkdir, "Is a directory"), (lambda path: os.symlink("nowhere", path), "No such file or directory")],
)
def test_what_cannot_be_opened_is_named(folder, put, reason):
    path = folder / f"{VAL}_-_eeg.npy"
    path.unlink()
    put(path)
    assert only_fault_of(folder, path.name) == f"unreadable ({reason})"


@pytest.mark.filterwarnings("ignore")
def test_no_damage_to_a_header_is_more_than_a_fault(tmp_path):
    random, path = np.random.default_rng(0), tmp_path / "a.npy"
    np.save(path, random.random((20, 3)))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(400):
        damaged = whole.copy()
        damaged[random.integers(0, 90, 2)] = random.integers(0, 256, 2)
        path.write_bytes(damaged.tobytes())
        recording_files.examine(path)


# ---- recordings that belong together


def test_a_subject_of_whom_there_is_no_train_part_is_named(folder):
    save(folder, stem("test", 9), *signals(np.random.default_rng(0), 99, 3))
    fault = only_fault_of(folder, f"{stem('test', 9)}_-_eeg.npy")
    assert fault == "unknown subject sub-009, who has no train part"


def test_a_recording_without_its_train_part_is_named(folder):
    save(folder, stem("val", 1, 9), *signals(np.random.default_rng(0), 99, 3))
    fault = only_fault_of(folder, f"{stem('val', 1, 9)}_-_eeg.npy", split="time")
    assert fault == "the recording has no train part, so it cannot be normalised"


# ---- all at once


def test_all_faults_are_in_one_message_and_a_mended_folder_is_read(folder):
    written = kept(folder, f"{TRAIN}_-_eeg"), kept(folder, f"{VAL}_-_eeg")
    spoilt = written[0].copy()
    spoilt[3, 1] = np.nan
    change(folder, f"{TRAIN}_-_eeg", spoilt)
    change(folder, f"{VAL}_-_eeg", written[1][:-1])
    (folder / f"{stem('test', 2, 2)}_-_eeg.npy").unlink()
    message = refusal(folder)
    assert "stories: 3 faults\n" in message
    for name in (f"{TRAIN}_-_eeg", f"{VAL}_-_eeg", f"{stem('test', 2, 2)}_-_envelope"):
        assert f"\n    {name}.npy: " in message
    change(folder, f"{TRAIN}_-_eeg", written[0])
    change(folder, f"{VAL}_-_eeg", written[1])
    save(folder, stem("test", 2, 2), *signals(np.random.default_rng(0), 99, 3))
    assert len(data.load(folder, window=WINDOW).parts) == 12


def test_of_many_faults_eight_are_in_words_and_the_others_counted(folder):
    for path in folder.glob("*_-_eeg.npy"):
        path.write_bytes(b"")
    lines = refusal(folder).splitlines()
    assert "12 faults" in lines[0]
    assert sum("not a complete npy file" in line for line in lines) == 8
    assert lines[9] == "    and 4 more"


def test_a_window_has_at_least_one_sample(folder):
    with pytest.raises(ValueError, match="at least 1 sample, not 0"):
        data.load(folder, window=0)
