"""Files of recorders: their rates as precisely as they say them, renamed ones, channels, and MNE's warnings."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from nfa.errors import Refusal
from nfa.registry.families.eeg.preparation.channels import choose, implied
from nfa.registry.families.eeg.preparation.config import PrepareEEGConfig
from nfa.registry.families.eeg.preparation.formats import OpenedRecording, open_recording
from nfa.registry.families.eeg.preparation.recordings import Recording, find
from nfa.registry.families.eeg.preparation.signals import half_unit
from tests.support.eeg_file_formats import brainvision, edf, eeglab, persyst

mne = pytest.importorskip("mne")
SECONDS = 6


def noise(rate: float, names: tuple[str, ...] = ("Fp1", "Cz")) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {name: 40 * random.standard_normal(round(SECONDS * rate)) for name in names}


def opened(path: Path, **more: object) -> OpenedRecording:
    envelope = path.with_name("envelope.npy")
    np.save(envelope, np.random.default_rng(4).random(64 * SECONDS))
    config = PrepareEEGConfig(source=".", target="out", envelope_rate=64, **more)
    return open_recording(Recording("sub-001_-_story", path, envelope), config)


# ---- rates


@pytest.mark.parametrize(
    ("interval", "rate", "asked"),
    [
        ("833.3333333", 1200, True),
        ("833.33", 1200, True),
        ("833", 1200, True),
        ("833.3333333", 1200.1, False),
        ("833.33", 1200.1, False),
        ("1000", 1001, False),
        ("976.5625", 1024, True),
        ("976.5625", 1024.01, False),
        ("3003.003", 333, True),
    ],
)
def test_a_rate_is_the_asked_one_as_precisely_as_an_interval_says_it(
    interval: str, rate: float, asked: bool, tmp_path: Path
) -> None:
    brainvision(tmp_path / "a.vhdr", noise(rate), interval=interval)
    if asked:
        assert opened(tmp_path / "a.vhdr", eeg_rate=rate).eeg.rate == rate
        assert opened(tmp_path / "a.vhdr").eeg.rate == pytest.approx(1e6 / float(interval), rel=1e-12)
    else:
        said = f"allowed: the rate stated in the file, {1e6 / float(interval):.10g} Hz"
        with pytest.raises(Refusal, match=said):
            opened(tmp_path / "a.vhdr", eeg_rate=rate)


@pytest.mark.parametrize(("seconds", "size", "rate"), [("0.333333", 85, 255), ("0.142857", 40, 280), ("1", 256, 256)])
def test_a_rate_is_the_asked_one_as_precisely_as_records_are_said_to_last(
    seconds: str, size: int, rate: float, tmp_path: Path
) -> None:
    records = SECONDS * rate // size
    onsets = [f"{k * size / rate:.6f}" for k in range(records)]
    edf(tmp_path / "a.edf", noise(rate), onsets=onsets, seconds=seconds)
    assert opened(tmp_path / "a.edf", eeg_rate=rate).eeg.rate == rate
    with pytest.raises(Refusal, match="the rate stated in the file"):
        opened(tmp_path / "a.edf", eeg_rate=rate + 0.01)


def test_a_rate_in_single_precision_is_the_asked_one(tmp_path: Path) -> None:
    info = mne.create_info(["Fp1", "Cz"], 1000 / 3, "eeg")
    path = tmp_path / "a_eeg.fif"
    mne.io.RawArray(np.stack([*noise(1000 / 3).values()]), info, verbose="ERROR").save(path, verbose="ERROR")
    said = float(np.float32(1000 / 3))
    assert opened(path, eeg_rate=333.33333).eeg.rate == 333.33333 != said
    with pytest.raises(Refusal, match=f"the rate stated in the file, {said:.10g} Hz"):
        opened(path, eeg_rate=333.333)


def test_channels_of_another_rate_do_not_change_that_of_the_eeg(tmp_path: Path) -> None:
    """MNE takes the fastest channel's for all, and resamples the others."""
    signals = noise(256) | {"ECG": noise(1024)["Fp1"]}
    edf(tmp_path / "a.edf", signals, onsets=[str(k) for k in range(SECONDS)], label="EDF+C")
    eeg = opened(tmp_path / "a.edf", eeg_rate=256).eeg
    assert (eeg.rate, eeg.samples, eeg.channels) == (256, 256 * SECONDS, ("Fp1", "Cz"))
    np.testing.assert_allclose(eeg.read(0, eeg.samples)[:, 1] * 1e6, signals["Cz"], atol=0.06)


@pytest.mark.parametrize(("text", "half"), [("833.3333333", 0.5e-7), ("833", 0.5), ("8.3e2", 5.0), ("1000.", 0.5)])
def test_half_of_the_last_digit(text: str, half: float) -> None:
    assert half_unit(text) == pytest.approx(half)


# ---- files that point to others


def test_files_renamed_with_their_header_are_taken_and_told(tmp_path: Path) -> None:
    names = [tmp_path / f"sub-001_-_story_-_eeg.{ending}" for ending in ("vhdr", "vmrk", "eeg")]
    brainvision(names[0], noise(250), interval="4000", called="recorded by me")
    np.save(tmp_path / "sub-001_-_story_-_envelope.npy", np.random.default_rng(4).random(64 * SECONDS))
    (recording,) = find(tmp_path)
    assert recording.eeg == names[0]
    found = opened(names[0])
    np.testing.assert_allclose(found.eeg.read(0, 9)[:, 0] * 1e6, noise(250)["Fp1"][:9], rtol=1e-6)
    assert found.notes == tuple(
        f"{names[0].name} points to recorded by me.{ending}, which does not exist, so {names[0].stem}.{ending} is used"
        for ending in ("eeg", "vmrk")
    )


def test_a_header_that_says_its_own_name_in_short_is_followed(tmp_path: Path) -> None:
    brainvision(tmp_path / "a[1].vhdr", noise(250), interval="4000", called="$b")
    assert opened(tmp_path / "a[1].vhdr").notes == ()


@pytest.mark.parametrize("ending", ["eeg", "vmrk"])
def test_a_file_that_a_header_points_to_and_that_is_not_there_is_named(ending: str, tmp_path: Path) -> None:
    brainvision(tmp_path / "new.vhdr", noise(250), interval="4000", called="old")
    (tmp_path / f"new.{ending}").rename(tmp_path / f"elsewhere.{ending}")
    what = {"eeg": "DataFile", "vmrk": "MarkerFile"}[ending]
    with pytest.raises(Refusal, match=rf"new.vhdr \(its {what} is old.{ending}, which does not exist\)"):
        opened(tmp_path / "new.vhdr")


def test_an_ending_in_capitals_is_refused_with_the_name_that_would_do(tmp_path: Path) -> None:
    brainvision(tmp_path / "new.vhdr", noise(250), interval="4000")
    (tmp_path / "new.vhdr").rename(tmp_path / "new.VHDR")
    with pytest.raises(Refusal, match=r"MNE does not know .VHDR\)(.|\n)*rename it to new.vhdr"):
        opened(tmp_path / "new.VHDR")


def test_of_two_files_that_may_be_meant_none_is_taken(tmp_path: Path) -> None:
    brainvision(tmp_path / "new.vhdr", noise(250), interval="4000", called="old")
    (tmp_path / "new.EEG").write_bytes(b"")
    with pytest.raises(Refusal, match=r"its DataFile is old\.eeg, which does not exist"):
        opened(tmp_path / "new.vhdr")


def test_data_of_other_formats_that_are_not_there_are_named(tmp_path: Path) -> None:
    persyst(tmp_path / "new.lay", noise(250), rate=250, times=[(0, 0.0)])
    (tmp_path / "new.dat").rename(tmp_path / "old.dat")
    with pytest.raises(Refusal, match=r"new.lay \(its File is new.dat, which does not exist\)"):
        opened(tmp_path / "new.lay")
    eeglab(tmp_path / "new.set", np.stack([*noise(250).values()], axis=1), rate=250, data="old.fdt")
    assert "old.fdt" in " ".join(opened(tmp_path / "new.set").notes)
    (tmp_path / "new.fdt").unlink()
    with pytest.raises(Refusal, match=r"Could not find the .fdt data file, tried \S*old.fdt"):
        opened(tmp_path / "new.set")


def test_persyst_s_data_are_no_recording_of_their_own(tmp_path: Path) -> None:
    persyst(tmp_path / "sub-001_-_story_-_eeg.lay", noise(250), rate=250, times=[(0, 0.0)])
    np.save(tmp_path / "sub-001_-_story_-_envelope.npy", np.zeros(9))
    assert [recording.eeg.suffix for recording in find(tmp_path)] == [".lay"]


# ---- channels

NAMES = ("Fp1", "Resp", "HEOGL", "EEG Pz-Oz", "EXG1", "chin EMG", "A1", "Status", "SpO2", "TP9", "Event marker", "E128")
EEG = ("Fp1", "EEG Pz-Oz", "A1", "TP9", "E128")


def test_names_that_imply_something_else_are_no_eeg() -> None:
    assert tuple(name for name in NAMES if not implied(name)) == EEG


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ("auto", EEG),
        ("", EEG),
        ("!A1", ("Fp1", "EEG Pz-Oz", "TP9", "E128")),
        ("auto, !*Oz", ("Fp1", "A1", "TP9", "E128")),
        ("Resp", ("Resp",)),
        ("?p1,TP9,Res*", ("Fp1", "Resp", "TP9")),
        ("E*,!EXG*,!Event marker", ("EEG Pz-Oz", "E128")),
    ],
)
def test_channels_are_those_asked_for_in_the_order_of_the_file(asked: str, used: tuple[str, ...]) -> None:
    found = choose(Path("a.edf"), NAMES, ["eeg"] * len(NAMES), asked)
    assert tuple(NAMES[place] for place in found.used) == used
    assert set(found.unused) == {*NAMES} - {*used}


def test_the_type_that_a_file_states_counts() -> None:
    types = ["eeg", "misc", "stim"]
    assert choose(Path("a.fif"), ["a", "b", "c"], types, "auto").unused == {"b": "misc", "c": "stim"}
    with pytest.raises(Refusal, match=r"a.fif \(no EEG channel among misc, stim\)"):
        choose(Path("a.fif"), ["b", "c"], types[1:], "auto")


def test_a_word_that_fits_no_channel_is_refused_with_a_near_one() -> None:
    with pytest.raises(Refusal, match=r"channels='!Rsp' \(a.edf has no 'Rsp'\)(.|\n)*did you mean Resp\?"):
        choose(Path("a.edf"), NAMES, ["eeg"] * len(NAMES), "!Rsp")


@pytest.mark.parametrize("ending", ["edf", "vhdr"])
def test_what_is_used_and_what_not_is_told(ending: str, tmp_path: Path) -> None:
    path, signals = tmp_path / f"a.{ending}", noise(250, ("Fp1", "Resp", "Cz"))
    if ending == "edf":
        edf(path, signals, onsets=[str(k) for k in range(SECONDS)])
    else:
        brainvision(path, signals, interval="4000")
    found = opened(path)
    assert found.channels == "2 used: Fp1, Cz; not used: Resp (breathing by its name)"
    assert found.eeg.channels == ("Fp1", "Cz")
    asked = opened(path, channels="Resp").eeg
    np.testing.assert_allclose(asked.read(0, 100)[:, 0] * 1e6, signals["Resp"][:100], atol=0.06)


def test_channels_of_arrays_are_called_by_their_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((SECONDS * 250, 4)))
    found = opened(tmp_path / "a.npy", eeg_rate=250, channels="!2")
    assert found.channels == "3 used: 0, 1, 3; not used: 2 (left out)"
    np.testing.assert_array_equal(found.eeg.read(3, 5), np.load(tmp_path / "a.npy")[3:5][:, [0, 1, 3]])


# ---- warnings


def test_what_mne_warns_of_is_told_in_a_line_each(tmp_path: Path) -> None:
    edf(tmp_path / "a.edf", noise(250, ("Fp1", "Fp1", "Cz")), onsets=[str(k) for k in range(SECONDS)], promised=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = opened(tmp_path / "a.edf")
    (note,) = found.notes
    assert note.startswith("a.edf: Number of records from the header does not match the file size")
    assert "\n" not in note


def test_a_format_whose_time_stamps_are_not_read_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "a.nxe"
    path.write_bytes(np.random.default_rng(0).integers(-99, 99, 64 * 1450 * SECONDS).astype("<i2").tobytes())
    assert "a.nxe: time stamps of this format are not read" in opened(path).notes[-1]
