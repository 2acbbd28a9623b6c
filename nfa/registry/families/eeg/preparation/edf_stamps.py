"""Time stamps of EDF, EDF+, BDF and BDF+ files, whose data records each say when they began.

Kemp and Olivan 2003, European data format 'plus' (EDF+), doi:10.1016/S1388-2457(03)00123-8.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nfa.errors import Refusal
from nfa.registry.families.eeg.preparation.signals import Gap, half_unit

ENDINGS = {".edf": 2, ".bdf": 3}  # bytes of a sample
FIELD = 8  # characters of a number in the header; one that fills them may have been rounded
ONSET = re.compile(rb"([+-]\d+(?:\.\d*)?)\x14\x14")  # with an empty text, at the beginning of a record
FINEST = 0.0005  # seconds; coarser stamps are taken to be exact where others are counted from them


@dataclass(frozen=True)
class EDFHeader:
    """The header; `promised` is its number of records (−1 if unknown), `there` the number in the file."""

    labels: tuple[str, ...]
    samples: tuple[int, ...]  # of each signal in a record
    seconds: str  # of a record, as written
    interrupted: bool
    promised: int
    there: int
    begin: int  # bytes before the first record
    width: int  # bytes of a sample

    @property
    def slack(self) -> float:
        """Seconds by which a record may be longer or shorter than it is written to be."""
        return half_unit(self.seconds) if len(self.seconds) >= FIELD else 0.0


def header_of(path: Path) -> EDFHeader:
    """Read the header of an EDF or BDF file; raise `ValueError` for another file."""
    with path.open("rb") as file:
        fixed = file.read(256).decode("latin-1")
        signals = int(fixed[252:256])
        rest = file.read(256 * signals).decode("latin-1")
    begin, width = int(fixed[184:192]), ENDINGS[path.suffix.lower()]
    samples = tuple(int(rest[216 * signals + 8 * k :][:8]) for k in range(signals))
    return EDFHeader(
        labels=tuple(rest[16 * k :][:16].strip() for k in range(signals)),
        samples=samples,
        seconds=fixed[244:252].strip(" \0"),
        interrupted=fixed[192:197] in ("EDF+D", "BDF+D"),
        promised=int(fixed[236:244]),
        there=(path.stat().st_size - begin) // max(1, width * sum(samples)),
        begin=begin,
        width=width,
    )


def check_whole(path: Path, header: EDFHeader) -> None:
    """Raise `Refusal` if the file has fewer records than its header states, as after an interrupted copy."""
    if header.there < header.promised:
        got = f"{path} (its header states {header.promised} data records, but it holds {header.there})"
        raise Refusal(got, "whole files", "copy it again; if the rest is lost, export what there is to a new file")


def gaps_of(path: Path, rate: float) -> list[Gap]:
    """Return gaps between records, by their time stamps; raise `Refusal` if time stamps are missing."""
    header = header_of(path)
    stamps = list(_stamps(path, header))
    rounding = min((half_unit(stamp) for stamp in stamps if stamp), default=0.0)
    slack = 0.5 / rate + rounding + min(rounding, FINEST)
    seconds, found = float(header.seconds), []
    first, begun = -1, 0.0  # the record and time from which others are counted
    for record, stamp in enumerate(stamps):
        if stamp is None:
            _check_told(path, header, record)
            continue
        missing = float(stamp) - begun - (record - first) * seconds
        if first < 0:
            first, begun = record, float(stamp)
        elif abs(missing) > slack + (record - first) * header.slack:
            found.append(Gap(round(record * seconds * rate), missing))
            first, begun = record, float(stamp)
    return found


def _check_told(path: Path, header: EDFHeader, record: int) -> None:
    if header.interrupted:
        got = f"{path} (it may have gaps, but its data record {record}, counted from 0, has no start time)"
        raise Refusal(got, "EDF+D and BDF+D with a time stamp in every record", "export it again")


def _stamps(path: Path, header: EDFHeader) -> Iterator[str | None]:
    """When each record began, in seconds as written; None if it does not say."""
    at = next((k for k, label in enumerate(header.labels) if label in ("EDF Annotations", "BDF Annotations")), None)
    if at is None or not header.there:
        return
    size, first = header.width * sum(header.samples), header.width * sum(header.samples[:at])
    records = np.memmap(path, np.uint8, "r", header.begin, (header.there, size))
    for record in records[:, first : first + header.width * header.samples[at]]:
        found = ONSET.match(record.tobytes())
        yield found[1].decode() if found else None
