"""Interrupted recordings: in every format with time stamps, gaps are found where the bytes have them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from nfa.errors import Refusal
from nfa.registry.families.eeg.preparation.config import PrepareEEGConfig
from nfa.registry.families.eeg.preparation.filters import FilterSettings, prepare, spans_of
from nfa.registry.families.eeg.preparation.formats import OpenedRecording, open_recording
from nfa.registry.families.eeg.preparation.recordings import Recording
from nfa.registry.families.eeg.preparation.signals import Segment
from tests.support.eeg_file_formats import brainvision, edf, edf_gaps, eeglab, gdf, neuroscan, persyst, segment

mne = pytest.importorskip("mne")
RATE, SECONDS = 256, 12
STAMPS = [str(k) for k in range(SECONDS)]


def noise(seconds: float = SECONDS, rate: float = RATE, names: Sequence[str] = ("Fp1", "Cz")) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {name: 40 * random.standard_normal(round(seconds * rate)) for name in names}


def opened(path: Path, seconds: float, **more: object) -> OpenedRecording:
    """With an envelope of that length, 64 samples a second."""
    envelope = path.with_name("envelope.npy")
    np.save(envelope, np.random.default_rng(4).random(round(seconds * 64)))
    config = PrepareEEGConfig(source=".", target="out", envelope_rate=64, **more)
    return open_recording(Recording("sub-001_-_story", path, envelope), config)


def refused(path: Path, seconds: float, **more: object) -> str:
    with pytest.raises(Refusal) as found:
        opened(path, seconds, **more)
    return str(found.value)


def stamps(skip: float, after: int, digits: int = 1) -> list[str]:
    return [str(k) if k < after else f"{k + skip:.{digits}f}" for k in range(SECONDS)]


def rows() -> np.ndarray:
    return np.stack(list(noise().values()), axis=1)


def fif(rows: np.ndarray, *, first: int = 0) -> "mne.io.RawArray":
    """EEG [T, C] in µV, to be saved."""
    info = mne.create_info([f"C{k}" for k in range(rows.shape[1])], RATE, "eeg")
    return mne.io.RawArray(rows.T * 1e-6, info, first_samp=first, verbose="ERROR")


def fif_skip(path: Path) -> None:
    raw = fif(rows(), first=300)
    raw.set_annotations(mne.Annotations([5.0], [0.5], ["BAD_ACQ_SKIP"]))
    raw.save(path, buffer_size_sec=0.5, verbose="ERROR")


def fif_files(path: Path) -> None:
    """Two, the second of which begins 128 samples too late."""
    raw = fif(np.tile(rows(), (1, 100)), first=300)
    raw.save(path, split_size="2MB", verbose="ERROR")
    second = path.with_name(f"{path.stem}-1.fif")
    begins = mne.io.read_raw_fif(second, verbose="ERROR").first_samp
    assert begins - 300 == FIF_SPLIT
    late = fif(np.tile(rows(), (1, 100))[FIF_SPLIT:], first=begins + 128)
    late.save(second, overwrite=True, verbose="ERROR")


def fif_joined(path: Path) -> None:
    halves = [fif(rows()[:1280]), fif(rows()[1280:])]
    mne.concatenate_raws(halves, verbose="ERROR").save(path, verbose="ERROR")


FIF_SPLIT = 1280
MARKS = [segment(0, 0), "Stimulus,S  1,700,1,0"]
# Name, how to write it, place and length of the gap.
KNOWN: dict[str, tuple[str, Callable[[Path], None], int, float]] = {
    "EDF+D": ("edf", lambda p: edf(p, noise(), onsets=stamps(0.4, 5)), 1280, 0.4),
    "BDF+D": ("bdf", lambda p: edf(p, noise(), onsets=stamps(0.4, 5), label="BDF+D"), 1280, 0.4),
    "EDF+C that is not": ("edf", lambda p: edf(p, noise(), onsets=stamps(0.4, 5), label="EDF+C"), 1280, 0.4),
    "three samples": ("edf", lambda p: edf(p, noise(), onsets=stamps(3 / 256, 7, 6)), 1792, 3 / 256),
    "BrainVision": (
        "vhdr",
        lambda p: brainvision(p, noise(), interval="3906.25", markers=[*MARKS, segment(1280, 5.4)]),
        1280,
        0.4,
    ),
    "lost samples": (
        "vhdr",
        lambda p: brainvision(p, noise(), interval="3906.25", markers=[*MARKS, "Other,LostSamples: 100,1281,1,0"]),
        1280,
        100 / 256,
    ),
    "lost samples, noted": (
        "vhdr",
        lambda p: brainvision(
            p, noise(), interval="3906.25", markers=[*MARKS, "Comment,LostSamples: 64,1281,1,0", segment(2560, 10.25)]
        ),
        1280,
        0.25,
    ),
    "FIF, skipped": ("fif", fif_skip, 1280, 0.5),
    "FIF, files": ("fif", fif_files, FIF_SPLIT, 0.5),
    "EEGLAB": ("set", lambda p: eeglab(p, rows(), rate=RATE, events=[("boundary", 1280.5, 128.0)]), 1280, 0.5),
    "Persyst": ("lay", lambda p: persyst(p, noise(), rate=RATE, times=[(0, 100.0), (1280, 105.25)]), 1280, 0.25),
}


@pytest.mark.parametrize("case", KNOWN)
def test_a_gap_is_refused_with_its_place_and_cut_at_when_asked(case: str, tmp_path: Path) -> None:
    ending, write, sample, lost = KNOWN[case]
    path = tmp_path / f"sub-001_-_story_-_eeg.{ending}"
    write(path)
    held, lasting = (round(lost * RATE), SECONDS) if case == "FIF, skipped" else (0, SECONDS + lost)
    said = refused(path, lasting)
    assert f"{path.name} ({lost:.4g} s are missing at {sample / RATE:.3f} s, sample {sample} counted from 0)" in said
    assert "do: gaps=cut" in said
    eeg = opened(path, lasting, gaps="cut").eeg
    assert [(each.start, each.stop) for each in eeg.segments] == [(0, sample), (sample + held, eeg.samples)]
    assert [each.onset for each in eeg.segments] == pytest.approx([0, sample / RATE + lost], abs=1e-6)
    assert eeg.seconds == pytest.approx(lasting, abs=1e-6)


UNKNOWN: dict[str, tuple[str, Callable[[Path], None]]] = {
    "no dates": (
        "vhdr",
        lambda p: brainvision(p, noise(), interval="3906.25", markers=["New Segment,,1,1,0", "New Segment,,1281,1,0"]),
    ),
    "cut by an analysis": (
        "vhdr",
        lambda p: brainvision(
            p, noise(), interval="3906.25",
            more=["SegmentationType=MARKERBASED", "SegmentDataPoints=1280", "DataPoints=3072"],
        ),
    ),
    "FIF, joined": ("fif", fif_joined),
    "EEGLAB": ("set", lambda p: eeglab(p, rows(), rate=RATE, events=[("boundary", 1280.5, float("nan"))])),
    "GDF": ("gdf", lambda p: gdf(p, noise(), rate=RATE, begins=[0, 1280])),
    "Neuroscan": ("cnt", lambda p: neuroscan(p, noise(), rate=RATE, breaks=[1280])),
}  # fmt: skip


@pytest.mark.parametrize("gaps", ["refuse", "cut"])
@pytest.mark.parametrize("case", UNKNOWN)
def test_a_gap_of_unknown_length_is_never_cut_at(case: str, gaps: str, tmp_path: Path) -> None:
    ending, write = UNKNOWN[case]
    path = tmp_path / f"sub-001_-_story_-_eeg.{ending}"
    write(path)
    said = refused(path, SECONDS, gaps=gaps)
    assert "a new segment begins after a gap of unknown length" in said
    assert "at 5.000 s, sample 1280 counted from 0" in said


@pytest.mark.parametrize("gaps", ["refuse", "cut"])
def test_time_that_goes_back_is_refused(gaps: str, tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    edf(path, noise(), onsets=stamps(-0.3, 5))
    assert "time stamps go back by 0.3 s at 5.000 s, sample 1280" in refused(path, SECONDS, gaps=gaps)


WHOLE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "EDF": ("edf", lambda p: edf(p, noise(), onsets=STAMPS, label="", tals=False)),
    "EDF+C": ("edf", lambda p: edf(p, noise(), onsets=STAMPS, label="EDF+C")),
    "EDF+D": ("edf", lambda p: edf(p, noise(), onsets=STAMPS)),
    "EDF+D from a quarter on": ("edf", lambda p: edf(p, noise(), onsets=[f"{k}.25" for k in range(SECONDS)])),
    "EDF+D in thirds": (
        "edf",
        lambda p: edf(p, noise(12, 255), onsets=[f"{k / 3:.3f}" for k in range(36)], seconds="0.333333"),
    ),
    "BrainVision": ("vhdr", lambda p: brainvision(p, noise(), interval="3906.25", markers=MARKS)),
    "BrainVision, segments that follow at once": (
        "vhdr",
        lambda p: brainvision(p, noise(), interval="3906.25", markers=[*MARKS, segment(1280, 5)]),
    ),
    "BrainVision, dates in milliseconds": (
        "vhdr",
        lambda p: brainvision(p, noise(), interval="3906.25", markers=[*MARKS, segment(1250, 4.885)]),  # 4.8828125
    ),
    "FIF": ("fif", lambda p: fif(rows(), first=99).save(p, verbose="ERROR")),
    "FIF, files": ("fif", lambda p: fif(np.tile(rows(), (1, 100))).save(p, split_size="2MB", verbose="ERROR")),
    "EEGLAB": ("set", lambda p: eeglab(p, rows(), rate=RATE, events=[("S1", 700.0, 1.0), ("boundary", 0.5, 9.0)])),
    "Persyst": ("lay", lambda p: persyst(p, noise(), rate=RATE, times=[(0, 100.0), (1280, 105.0)])),
    "GDF": ("gdf", lambda p: gdf(p, noise(), rate=RATE, begins=[0])),
    "Neuroscan": ("cnt", lambda p: neuroscan(p, noise(), rate=RATE, breaks=[])),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_recording_without_a_gap_has_none(case: str, tmp_path: Path) -> None:
    ending, write = WHOLE[case]
    path = tmp_path / f"sub-001_-_story_-_eeg.{ending}"
    write(path)
    eeg = opened(path, SECONDS).eeg
    assert eeg.segments == (Segment(0, eeg.samples),)
    assert eeg.seconds == pytest.approx(SECONDS, abs=1e-4)


def test_gaps_are_where_the_bytes_have_them(tmp_path: Path) -> None:
    """Several, against a parse of nothing but the stamps."""
    path = tmp_path / "a.edf"
    onsets = np.arange(SECONDS) + np.select([np.arange(SECONDS) >= 8, np.arange(SECONDS) >= 3], [2.75, 0.015625], 0)
    edf(path, noise(), onsets=[f"{onset:g}" for onset in onsets])
    eeg = opened(path, SECONDS + 2.75, gaps="cut").eeg
    parsed = edf_gaps(path, RATE, 1.0)
    assert [sample for sample, _ in parsed] == [each.start for each in eeg.segments[1:]] == [768, 2048]
    onset = [each.start / RATE + sum(lost for sample, lost in parsed if sample <= each.start) for each in eeg.segments]
    assert [each.onset for each in eeg.segments] == pytest.approx(onset)
    assert "2 gaps in all" in refused(path, SECONDS + 2.75)


def test_a_clock_that_runs_away_from_the_samples_slowly_is_a_gap(tmp_path: Path) -> None:
    """By a tenth of a sample in each record: no two records are half a sample apart."""
    path = tmp_path / "a.edf"
    edf(path, noise(), onsets=[f"{k * (1 + 0.1 / 256):.6f}" for k in range(SECONDS)])
    assert "0.002344 s are missing at 6.000 s, sample 1536 counted from 0)" in refused(path, SECONDS)


def test_an_interrupted_file_whose_records_do_not_say_when_they_began_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    edf(path, noise(), onsets=STAMPS)
    path.write_bytes(path.read_bytes().replace(b"+7\x14\x14", b"7 7\x14"))
    assert "its data record 7, counted from 0, has no start time" in refused(path, SECONDS)


# ---- what is promised


def test_a_header_that_promises_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    edf(path, noise(), onsets=STAMPS, promised=20)
    assert "its header states 20 data records, but it holds 12" in refused(path, SECONDS)
    edf(path, noise(), onsets=STAMPS, promised=-1)  # of a recording that was not stopped
    found = opened(path, SECONDS)
    assert found.eeg.samples == SECONDS * RATE
    assert [note for note in found.notes if "a.edf: Number of records from the header does not match" in note]
    brainvision(tmp_path / "b.vhdr", noise(), interval="3906.25", more=["DataPoints=4000"])
    assert "its header states 4000 samples, but b.eeg holds 3072" in refused(tmp_path / "b.vhdr", SECONDS)
    eeglab(tmp_path / "c.set", rows(), rate=RATE, data="c.fdt")
    os.truncate(tmp_path / "c.fdt", 2 * 4 * 3000)
    said = refused(tmp_path / "c.set", SECONDS)
    assert "the last of the 3072 samples stated in its header cannot be read" in said


# ---- what is made of the pieces


def delayed(envelope: np.ndarray, samples: int) -> np.ndarray:
    return np.concatenate([np.zeros(samples), envelope[:-samples]])


def lag(eeg: np.ndarray, envelope: np.ndarray) -> int:
    """Samples by which the EEG follows the envelope: where they are most alike."""
    tried = range(-40, 41)
    pairs = [(eeg[max(0, k) :][: len(eeg) - abs(k)], envelope[max(0, -k) :][: len(eeg) - abs(k)]) for k in tried]
    return tried[int(np.argmax([np.corrcoef(*pair)[0, 1] for pair in pairs]))]


@pytest.mark.parametrize("suffix", ["edf", "bdf"])
def test_parts_around_a_gap_go_with_the_speech_that_was_heard_and_none_goes_across(suffix: str, tmp_path: Path) -> None:
    """EEG that repeats the envelope 6 samples of 64 later, with 0.4 s lost after 20 s and 0.7 s after 50 s."""
    heard = np.convolve(np.random.default_rng(5).random(64 * 62), np.ones(5) / 5, "same")
    whole = np.repeat(delayed(heard, 6), 4)[: 256 * 61 + 26]  # 61.1 s at 256 Hz
    lost = [(20.0, 0.4), (50.0, 0.7)]
    kept = np.ones(len(whole), bool)
    kept[5120:][:102] = kept[12902:][:179] = False  # as many whole samples as that
    digits = 100 * whole[kept][: 256 * 60]
    path = tmp_path / f"a.{suffix}"
    onsets = [k + (102 / 256) * (k >= 20) + (179 / 256) * (k >= 50) for k in range(60)]
    stamped = [f"{onset:.7f}" for onset in onsets]
    edf(path, {"Cz": digits, "Pz": -digits}, onsets=stamped, label=f"{suffix.upper()}+D")
    np.save(tmp_path / "envelope.npy", heard[: round(64 * (60 + 281 / 256))])
    config = PrepareEEGConfig(source=".", target="out", envelope_rate=64, gaps="cut")
    found = open_recording(Recording("sub-001_-_story", path, tmp_path / "envelope.npy"), config)
    spans = spans_of(found.eeg, found.envelope, FilterSettings())
    assert [span.name for span in spans] == ["train+1of2", "train+2of2", "val+1of2", "val+2of2", "test"]
    eeg, envelope = (prepare(signal, spans, FilterSettings()).parts for signal in (found.eeg, found.envelope))
    for span in spans:
        assert len(eeg[span]) == len(envelope[span]) == span.last - span.first
        if len(eeg[span]) > 128:
            assert lag(eeg[span][:, 0], envelope[span][:, 0]) == 6
            assert not any(span.first / 64 < place + after and place < span.last / 64 - 0.02 for place, after in lost)
    assert sum(len(part) for part in eeg.values()) >= 64 * 60 - 4


def test_pieces_below_a_second_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    onsets = [k / 2 + 0.25 * (k >= 8) + 0.25 * (k >= 9) for k in range(24)]  # a piece of half a second from 4.25 s on
    edf(path, noise(12), onsets=[f"{onset:g}" for onset in onsets], seconds="0.5")
    found = opened(path, 12.5, gaps="cut")
    spans = spans_of(found.eeg, found.envelope, FilterSettings(train_share=0.6, val_share=0.2))
    assert [(span.name, span.first, span.last) for span in spans] == [
        ("train+1of2", 0, 256),
        ("train+2of2", 320, 480),
        ("val", 480, 640),
        ("test", 640, 800),
    ]
