"""Files of recorders: whatever has happened to one, the recording is read or refused by its name, and nothing else."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nfa.errors import Refusal
from nfa.registry.families.eeg.preparation.config import PrepareEEGConfig
from nfa.registry.families.eeg.preparation.formats import OpenedRecording, open_recording
from nfa.registry.families.eeg.preparation.recordings import Recording
from tests.support.eeg_file_formats import brainvision, edf, neuroscan, persyst, segment
from tests.support.fuzzing import of_bytes, outcomes

mne = pytest.importorskip("mne")
RATE, SECONDS = 64, 6
FEW, MANY = 40, pytest.param(1000, marks=pytest.mark.slow)
SIGNALS = {name: 40 * np.random.default_rng(k).standard_normal(RATE * SECONDS) for k, name in enumerate(("Fp1", "Cz"))}
MARKERS = [segment(0, 0), "Stimulus,S  1,70,1,0", "Comment,LostSamples: 4,129,1,0", segment(256, 5.5)]
TIMES = [(0, 10.0), (192, 13.5)]


def fif(path: Path) -> None:
    info = mne.create_info([*SIGNALS], RATE, "eeg")
    mne.io.RawArray(1e-6 * np.stack([*SIGNALS.values()]), info, verbose="ERROR").save(path, verbose="ERROR")


# The file that is damaged, and how it and the others are written.
WRITTEN: dict[str, tuple[str, Callable[[Path], None]]] = {
    "EDF": ("edf", lambda p: edf(p, SIGNALS, onsets=[str(k + (k > 2)) for k in range(SECONDS)])),
    "BDF": ("bdf", lambda p: edf(p, SIGNALS, onsets=[str(k + (k > 2)) for k in range(SECONDS)], label="BDF+D")),
    "BrainVision header": ("vhdr", lambda p: brainvision(p, SIGNALS, interval="15625", markers=MARKERS)),
    "BrainVision markers": ("vmrk", lambda p: brainvision(p, SIGNALS, interval="15625", markers=MARKERS)),
    "BrainVision data": ("eeg", lambda p: brainvision(p, SIGNALS, interval="15625", markers=MARKERS)),
    "Persyst": ("lay", lambda p: persyst(p, SIGNALS, rate=RATE, times=TIMES)),
    "Neuroscan": ("cnt", lambda p: neuroscan(p, SIGNALS, rate=RATE, breaks=[])),
    "FIF": ("fif", fif),  # a damaged .set file can crash SciPy, and the process with it
}
HEADERS = {"vmrk": "vhdr", "eeg": "vhdr"}


@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("case", WRITTEN)
def test_a_damaged_recording_is_read_or_refused_by_its_name(case: str, count: int, tmp_path: Path) -> None:
    ending, write = WRITTEN[case]
    header = tmp_path / f"one_-_story_-_eeg.{HEADERS.get(ending, ending)}"
    write(header)
    np.save(tmp_path / "envelope.npy", np.random.default_rng(0).random(RATE * SECONDS))
    config = PrepareEEGConfig(source=".", target="out", gaps="cut")

    def read(_: Path) -> OpenedRecording:
        opened = open_recording(Recording("one_-_story", header, tmp_path / "envelope.npy"), config)
        opened.eeg.read(0, 3)
        return opened

    def whole(_: bytes, opened: OpenedRecording) -> bool:
        """Segments lie one behind the other within the file."""
        edges = [edge for each in opened.eeg.segments for edge in (each.start, each.stop)]
        return edges == sorted(edges) and edges[-1] <= opened.eeg.samples

    damaged = header.with_suffix(f".{ending}")
    draw, raw = random.Random(7), damaged.read_bytes()
    found = outcomes(damaged, (of_bytes(raw, draw) for _ in range(count)), read, whole, named="one_-_story_-_eeg")
    assert found.total() == count


def test_tags_that_lead_in_a_circle_are_refused_and_not_followed_for_ever(tmp_path: Path) -> None:
    """Without a directory of them, at 52, MNE follows each tag to the next; the second, at 36, points to itself."""
    file = tmp_path / "one_-_story_-_eeg.fif"
    fif(file)
    raw = bytearray(file.read_bytes())
    struct.pack_into(">ii", raw, 48, 36, -1)
    file.write_bytes(raw)
    np.save(tmp_path / "envelope.npy", np.random.default_rng(0).random(RATE * SECONDS))
    with pytest.raises(Refusal, match=rf"{file} \(its tags form a cycle\)"):
        open_recording(
            Recording("one_-_story", file, tmp_path / "envelope.npy"), PrepareEEGConfig(source=".", target="out")
        )
