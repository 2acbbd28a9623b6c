"""Gaps in recordings: time stamps, or marks of a new segment, compared with the number of samples.

MNE joins what lies around a gap, and marks it in some formats. Where a format has time stamps that MNE leaves unread,
they are read here.
"""

import math
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nfa.registry.families.eeg.preparation import brainvision, edf_stamps, persyst
from nfa.registry.families.eeg.preparation.signals import Gap

HELD = "BAD_ACQ_SKIP"  # rows that hold the place of what was not recorded
JOINS = ("BAD boundary", "EDGE boundary", "boundary")  # of MNE's own and of EEGLAB
GDF_SEGMENT = "32766"  # 0x7ffe, the start of a new segment after a break
SETUP = (("<H", 370), ("<i", 864), ("<i", 886))  # of Neuroscan: channels, samples, place of the table of events
CNT_BREAK = 14  # what Neuroscan notes of an event at which recording went on after a break


def gaps_of(path: Path, raw: Any, rate: float) -> list[Gap]:
    """Return all gaps of a file that MNE has opened as `raw`, in order."""
    read = BY_FORMAT.get(_ending(path))
    found: dict[int, Gap] = {}
    for gap in sorted([*_annotated(path, raw, rate), *(read(path, raw, rate) if read else ())], key=_first_known):
        last = found.get(max(found, default=-1))
        if last and gap.sample < last.sample + last.held:  # marked twice
            held = max(last.held, gap.sample + gap.held - last.sample)
            found[last.sample] = Gap(last.sample, held / rate, held)
        elif 0 <= gap.sample < raw.n_times and (gap.sample or gap.held):
            found.setdefault(gap.sample, gap)
    return list(found.values())


def are_seen(path: Path) -> bool:
    """Return whether gaps can be detected in files of this format."""
    return _ending(path) in {*BY_FORMAT, *ANNOTATED}


def _ending(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _first_known(gap: Gap) -> tuple[int, bool, int]:
    return gap.sample, gap.seconds is None, -gap.held


def _annotated(path: Path, raw: Any, rate: float) -> Iterator[Gap]:
    """Yield gaps marked by MNE; onsets of annotations are relative to the time of the file's sample 0."""
    for mark in raw.annotations:
        at, text = mark["onset"] * raw.info["sfreq"] - raw.first_samp, mark["description"]
        if text == HELD:
            first, last = (math.floor(at + 1e-3), math.ceil(at + mark["duration"] * raw.info["sfreq"] - 1e-3))
            yield Gap(max(0, first), (last - max(0, first)) / rate, last - max(0, first))
        elif text in JOINS or (text == GDF_SEGMENT and _ending(path) == ".gdf"):
            lost = float(mark["duration"]) if text == "boundary" and mark["duration"] > 0 else None
            yield Gap(math.ceil(at - 1e-3), lost)


def _of_fif(_: Path, raw: Any, rate: float) -> list[Gap]:
    """Return gaps between the files of a recording, each of which states the time of its samples."""
    import mne

    found, known = [], 0
    for name in raw.filenames[1:]:
        rest = mne.io.read_raw_fif(name, on_split_missing="ignore", verbose="ERROR")
        rows = raw.n_times - rest.n_times
        missing = rest.first_samp - raw.first_samp - rows - known
        if missing:
            found.append(Gap(rows, missing / rate))
        known += missing
    return found


def _of_neuroscan(path: Path, _: Any, __: float) -> list[Gap]:
    """Return gaps at events with the code of a break, whose length is unknown."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    channels, samples, table = (struct.unpack_from(kind, content, at)[0] for kind, at in SETUP)
    kind, size = struct.unpack_from("<Bi", content, table)
    begin, width = 900 + 75 * channels, 8 if kind == 1 else 19
    frame = max(1, (table - begin) // max(1, samples))
    found = []
    for at in range(table + 9, min(table + 9 + size, len(content)) - width + 1, width):
        accept, offset = struct.unpack_from("<Bi", content, at + 3)
        if accept >> 4 == CNT_BREAK:
            found.append(Gap(offset if kind == 3 else (offset - begin) // frame, None))
    return found


Reader = Callable[[Path, Any, float], list[Gap]]
BY_FORMAT: Mapping[str, Reader] = {
    **dict.fromkeys(edf_stamps.ENDINGS, lambda path, _, rate: edf_stamps.gaps_of(path, rate)),
    **dict.fromkeys(brainvision.ENDINGS, lambda path, _, rate: brainvision.gaps_of(path, rate)),
    ".fif": _of_fif,
    persyst.ENDING: lambda path, _, rate: persyst.gaps_of(path, rate),
    ".cnt": _of_neuroscan,
}
ANNOTATED = (".gdf", ".set", ".eeg", ".mff", ".mefd", ".ns3")  # in which MNE marks gaps
