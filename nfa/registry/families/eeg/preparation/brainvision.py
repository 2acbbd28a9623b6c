"""BrainVision recordings: the files that a header points to, and what its markers say of time.

BrainVision Core Data Format 1.0, Brain Products GmbH.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from glob import escape
from itertools import pairwise
from pathlib import Path, PureWindowsPath

from nfa.errors import Refusal
from nfa.registry.families.eeg.preparation.signals import Gap

ENDINGS = (".vhdr", ".ahdr")
BYTES = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4, "IEEE_FLOAT_64": 8}
LOST = re.compile(r"lost ?samples:? *(\d+)", re.IGNORECASE)
MICROSECOND, MILLISECOND = 1e-6, 1e-3  # how finely dates are written: always with six digits, not always measured so


@dataclass(frozen=True)
class BrainVisionHeader:
    """Entries of a header by lower-case name, and the paths of data and markers; `notes` tells which were renamed."""

    entries: dict[str, str]
    data: Path
    markers: Path | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Marker:
    """A marker of a kind at a row counted from 0; `date` is the time of that row, if the marker states it."""

    kind: str
    text: str
    sample: int
    date: datetime | None


def header_of(path: Path) -> BrainVisionHeader:
    """Read a header; raise `Refusal` if a file that it points to is missing."""
    entries = {name.lower(): value for name, value in _entries(path) if not re.fullmatch(r"(?i)ch\d+", name)}
    notes: list[str] = []
    data = _pointed(path, "DataFile", entries.get("datafile", ""), notes)
    markers = _pointed(path, "MarkerFile", entries["markerfile"], notes) if entries.get("markerfile") else None
    return BrainVisionHeader(entries, data, markers, tuple(notes))


def check_whole(path: Path, header: BrainVisionHeader) -> None:
    """Raise `Refusal` if rows are missing that the header promises, and for an ending that MNE does not know."""
    if path.suffix not in ENDINGS:
        small = path.with_suffix(path.suffix.lower()).name
        raise Refusal(f"{path} (MNE does not know {path.suffix})", "extensions in lower case", f"rename it to {small}")
    width = BYTES.get(header.entries.get("binaryformat", "").upper())
    promised, channels = (int(header.entries.get(name, "0") or 0) for name in ("datapoints", "numberofchannels"))
    if width and channels and header.data.stat().st_size < promised * channels * width:
        there = header.data.stat().st_size // (channels * width)
        got = f"{path} (its header states {promised} samples, but {header.data.name} holds {there})"
        raise Refusal(got, "whole files", "copy it again; if the rest is lost, export what there is to new files")


def gaps_of(path: Path, rate: float) -> list[Gap]:
    """Return gaps: lost samples by markers, and new segments whose dates show a gap before them."""
    header = header_of(path)
    markers = markers_of(header.markers) if header.markers else []
    lost = {mark.sample: int(words[1]) / rate for mark in markers if (words := LOST.match(mark.text))}
    begun = sorted((mark for mark in markers if mark.kind == "new segment"), key=lambda mark: mark.sample)
    found: dict[int, float | None] = dict.fromkeys({*_segmented(header)} - {mark.sample for mark in begun})
    found |= _between_segments(begun, lost, rate) | lost
    return [Gap(sample, seconds) for sample, seconds in sorted(found.items())]


def _between_segments(begun: list[Marker], lost: dict[int, float], rate: float) -> dict[int, float | None]:
    """Seconds by which the date of a segment is later than rows and lost samples since the one before account for."""
    found: dict[int, float | None] = {mark.sample: None for mark in begun[:1] if mark.sample}
    fine = any(mark.date.microsecond % 1000 for mark in begun if mark.date)
    slack = 0.5 / rate + (MICROSECOND if fine else MILLISECOND)
    for last, mark in pairwise(begun):
        if last.date is None or mark.date is None:
            found[mark.sample] = None
            continue
        known = sum(seconds for sample, seconds in lost.items() if last.sample < sample < mark.sample)
        missing = (mark.date - last.date).total_seconds() - (mark.sample - last.sample) / rate - known
        if abs(missing) > slack:
            found[mark.sample] = missing
    return found


def _segmented(header: BrainVisionHeader) -> range:
    """First rows of all segments but the first, of data that an analysis has cut into segments of one length."""
    length, points = (int(header.entries.get(name, "0") or 0) for name in ("segmentdatapoints", "datapoints"))
    whole = header.entries.get("segmentationtype", "NOTSEGMENTED").upper() == "NOTSEGMENTED" or not length
    return range(0) if whole else range(length, points, length)


def markers_of(path: Path) -> list[Marker]:
    """Return all markers of a marker file in order."""
    found = []
    for name, value in _entries(path):
        words = value.split(",")
        if re.fullmatch(r"(?i)mk\d+", name) and len(words) > 2 and words[2].strip().isdecimal():
            date = words[5].strip() if len(words) > 5 else ""
            kind, text = (word.replace(r"\1", ",").strip() for word in words[:2])
            found.append(Marker(kind.lower(), text, int(words[2]) - 1, _date(date)))
    return found


def _date(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%S%f")
    except ValueError:
        return None  # none, or zeros


def _entries(path: Path) -> list[tuple[str, str]]:
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith(";"))
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _pointed(path: Path, what: str, named: str, notes: list[str]) -> Path:
    """Return the file that a header names, or the one that was renamed together with the header."""
    name = named.replace("$b", path.stem)
    place = path.parent / PureWindowsPath(name).as_posix()
    if name and place.is_file():
        return place
    own = path.parent.glob(f"{escape(path.stem)}.*")
    beside = [file for file in own if file.suffix.lower() == place.suffix.lower()]
    if not name or not place.suffix or len(beside) != 1:
        got = f"{path} (its {what} is {named or 'not named'}, which does not exist)"
        called = f"put {place.name} beside the header, under this name or as {path.stem}{place.suffix}"
        remedy = called if name else f"name it in the header: {what}=…"
        raise Refusal(got, "a header beside the files that it points to", remedy)
    notes.append(f"{path.name} points to {name}, which does not exist, so {beside[0].name} is used")
    return beside[0]
