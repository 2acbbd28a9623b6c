"""Recordings of EEG with the envelope of the heard speech, read window by window.

An example is a window. Its id is the position of its first sample among all samples of the data set, so every window
at any start has a unique id.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nfa.registry.families.eeg import layout
from nfa.registry.families.eeg.config import RATE, UNSEEN
from nfa.registry.families.eeg.layout import KINDS, SPLITS, Files, RecordingPart
from nfa.registry.families.eeg.recording_files import Facts, examined, rows
from nfa.registry.families.eeg.scales import Scale, normalised_by, pooled

__all__ = ["RATE", "SPLITS", "EEGData", "RecordingPart", "Windows", "load"]
UNKNOWN = -1  # index of every subject without a train part
Signal = NDArray[np.float64]


class Windows(NamedTuple):
    """n windows of T samples: normalised EEG [n, T, C] and envelope [n, T, 1], and the subject index [n] of each.

    Subjects without a train part have index −1.
    """

    eeg: Tensor
    envelope: Tensor
    subjects: Tensor


@dataclass(frozen=True, eq=False)
class EEGData:
    """Parts of recordings with `channels` channels at 64 Hz; `subjects` lists those of the train parts, sorted.

    Each channel is normalised by a mean and a standard deviation (ddof 0). With `split` "time" they come from the train
    part of the same recording, else from all train parts of the same subject. Subjects without train parts are
    normalised by their first minute or by all train parts, depending on `unseen`.
    """

    name: str
    folder: Path
    channels: int
    subjects: tuple[str, ...]
    parts: tuple[RecordingPart, ...]
    facts: Mapping[Path, Facts]
    split: str = "time"
    unseen: str = UNSEEN[0]

    def of(self, split: str) -> tuple[RecordingPart, ...]:
        """Parts of "train", "val" or "test"."""
        if split not in SPLITS:
            raise ValueError(f"no split {split!r} among {SPLITS}")
        return tuple(part for part in self.parts if part.split == split)

    def recordings(self, split: str) -> dict[str, list[RecordingPart]]:
        """Return recordings by name, each with its part in a split, or its pieces between gaps."""
        found: dict[str, list[RecordingPart]] = {}
        for part in self.of(split):
            found.setdefault(part.recording, []).append(part)
        return found

    def held_out(self, split: str) -> Counter[str]:
        """Count the recordings of a split by kind of holding out.

        The kinds are "time" (parts of training recordings), "recordings" (whole recordings of training subjects) and
        "subjects" (recordings of other subjects).
        """
        trained = self.recordings("train")
        return Counter(
            "time" if name in trained else "recordings" if parts[0].subject in self.subjects else "subjects"
            for name, parts in self.recordings(split).items()
        )

    def unseen_subjects(self) -> tuple[str, ...]:
        """The subjects without a train part, sorted."""
        return tuple(sorted({part.subject for part in self.parts} - {*self.subjects}))

    def normalised_by(self) -> str:
        """The source of a recording's mean and deviation, in words."""
        return normalised_by(self.split, self.unseen if self.unseen_subjects() else "")

    def digest(self) -> str:
        """SHA-256 over names and contents of all files, independent of where they lie."""
        content = hashlib.sha256()
        for path in (path for part in self.parts for path in (part.eeg, part.envelope)):
            content.update(f"{path.name}\n{self.facts[path].sha256}\n".encode())
        return content.hexdigest()

    def ids(self, split: str, window: int) -> list[int]:
        """Return the ids of all non-overlapping windows of `window` samples; the rest of each part is left out."""
        return [part.first + k * window for part in self.of(split) for k in range(part.samples // window)]

    def draw(self, window: int, per_recording: int, random: torch.Generator) -> Tensor:
        """Draw ids [train recordings · per_recording], in the order of recordings, of windows with random starts."""
        drawn = []
        for parts in self.recordings("train").values():
            starts = np.cumsum([0, *(max(0, part.samples - window + 1) for part in parts)])
            if not starts[-1]:
                part = parts[0]
                raise ValueError(f"{part.eeg.name} has {part.samples} samples, fewer than a window of {window}")
            found = torch.randint(int(starts[-1]), (per_recording,), generator=random)
            piece = np.searchsorted(starts, found.numpy(), side="right") - 1
            drawn.append(found + torch.tensor([part.first for part in parts])[piece] - torch.tensor(starts)[piece])
        return torch.cat(drawn)

    def part_of(self, ids: Sequence[int] | Tensor) -> list[RecordingPart]:
        """Return the part that each id lies in; raise `ValueError` for an id outside all parts."""
        places = _places(ids)
        end = self.parts[-1].first + self.parts[-1].samples
        if ((places < 0) | (places >= end)).any():
            raise ValueError(f"ids must be within 0…{end - 1}")
        return [self.parts[index] for index in np.searchsorted(self._firsts, places, side="right") - 1]

    def windows(self, ids: Sequence[int] | Tensor, window: int) -> Windows:
        """Return windows of `window` samples from `ids` on, in float32; raise `ValueError` if one leaves its part."""
        places, parts = _places(ids), self.part_of(ids)
        eeg = torch.empty(len(parts), window, self.channels)
        envelope = torch.empty(len(parts), window, 1)
        for part, chosen in _by_part(parts):
            starts = (places[chosen] - part.first).tolist()
            if window < 1 or max(starts) + window > part.samples:
                raise ValueError(f"a window of {window} samples does not lie within {part.eeg.name}")
            spans = [(start, start + window) for start in starts]
            for out, path in ((eeg, part.eeg), (envelope, part.envelope)):
                for index, signal in zip(chosen, self._normalised(part, path, spans), strict=True):
                    out[index] = torch.from_numpy(signal)
        subjects = [self._index.get(part.subject, UNKNOWN) for part in parts]
        return Windows(eeg, envelope, torch.tensor(subjects, dtype=torch.int64))

    def arrays(self, part: RecordingPart) -> tuple[Signal, Signal]:
        """Return a whole normalised part in float64: EEG [T, C] and envelope [T, 1]."""
        whole = [(0, part.samples)]
        eeg, envelope = (next(self._normalised(part, path, whole)) for path in (part.eeg, part.envelope))
        return eeg, envelope

    def _normalised(self, part: RecordingPart, path: Path, spans: list[tuple[int, int]]) -> Iterator[Signal]:
        scale = self.scale(part, "eeg" if path == part.eeg else "envelope")
        for signal in rows(path, self.facts[path], *spans):
            signal -= scale.mean
            signal /= scale.deviation
            yield signal

    def scale(self, part: RecordingPart, kind: str) -> Scale:
        """Return the scale that normalises the "eeg" or the "envelope" of a part."""
        whose = self._whose(part)
        if (whose, kind) not in self._scales:
            sources = self.scaled_by(part)
            paths = [one.eeg if kind == "eeg" else one.envelope for one in sources]
            minute = sources[0].split != "train"
            found = self._first_minute(paths) if minute else pooled([self.facts[path].scale() for path in paths])
            self._scales[whose, kind] = found
        return self._scales[whose, kind]

    def scaled_by(self, part: RecordingPart) -> list[RecordingPart]:
        """Return the train parts that normalise a part, or the recording whose first minute does."""
        own = self._train.get(self._whose(part), [])
        if own or self.split == "time":
            return own
        if self.unseen != UNSEEN[0]:
            return list(self.of("train"))
        known = [one for one in self.parts if one.subject == part.subject]
        first = min(one.recording for one in known)
        beginning = [one for one in known if one.recording == first]
        return sorted(beginning, key=lambda one: (one.split == "test", one.piece))

    def _whose(self, part: RecordingPart) -> str:
        return part.recording if self.split == "time" else part.subject

    def _first_minute(self, paths: list[Path]) -> Scale:
        """Return the scale of the first minute of consecutive files."""
        signals = [rows(path, self.facts[path], (0, 60 * RATE))[0] for path in paths]
        return Scale.of(np.concatenate(signals)[: 60 * RATE])

    @cached_property
    def _train(self) -> dict[str, list[RecordingPart]]:
        """Return train parts by the recording, or the subject, that they normalise."""
        found: dict[str, list[RecordingPart]] = {}
        for part in self.of("train"):
            found.setdefault(self._whose(part), []).append(part)
        return found

    @cached_property
    def _scales(self) -> dict[tuple[str, str], Scale]:
        return {}

    @cached_property
    def _firsts(self) -> NDArray[np.int64]:
        return np.array([part.first for part in self.parts])

    @cached_property
    def _index(self) -> dict[str, int]:
        return {subject: index for index, subject in enumerate(self.subjects)}


def load(folder: Path, *, window: int, name: str = "", split: str = "auto", unseen: str = UNSEEN[0]) -> EEGData:
    """Load the data set of a folder. Files are read completely only the first time.

    Args:
        folder: Folder in the split_data layout.
        window: Samples per window; each part needs a piece that holds a window.
        name: Name of the data set; empty = name of the folder.
        split: How val and test are held out; "auto" = "time" if all recordings have train parts, else "recordings".
        unseen: How subjects without train parts are normalised.

    Raises:
        Refusal: Names all files that cannot be used.
    """
    if window < 1:
        raise ValueError(f"a window has at least 1 sample, not {window}")
    name = name or folder.resolve().name
    files, faults = layout.found(folder)
    facts = examined(folder, (path for pair in files.values() for path in pair.values()))
    split = layout.split_of(files, split)
    faults += layout.faults_of(files, facts, window, split) if files else []
    data = replace(_data(name, folder, layout.sound(files, facts), facts), split=split, unseen=unseen)
    faults += _constant(data)
    if faults:
        raise layout.refused(name, folder, faults, window)
    return data


def _data(name: str, folder: Path, files: Files, facts: Mapping[Path, Facts]) -> EEGData:
    parts: list[RecordingPart] = []
    first = 0
    for (split, subject, stimulus), pair in files.items():
        samples = facts[pair["eeg"]].samples
        parts.append(RecordingPart(split, subject, stimulus, pair["eeg"], pair["envelope"], samples, first))
        first += samples
    channels = facts[parts[0].eeg].channels if parts else 0
    subjects = tuple(sorted({part.subject for part in parts if part.split == "train"}))
    return EEGData(name, folder, channels, subjects, tuple(parts), facts)


def _constant(data: EEGData) -> list[str]:
    """Return faults of channels that do not vary in the data that normalise a part."""
    found = {}
    for part in data.parts:
        sources = data.scaled_by(part)
        for kind in KINDS if sources else ():
            channel = data.scale(part, kind).unusable()
            if channel is not None:
                name = (sources[0].eeg if kind == "eeg" else sources[0].envelope).name
                found[name] = f"{name}: channel {channel} (counted from 0) has no variance, so it cannot be normalised"
    return list(found.values())


def _places(ids: Sequence[int] | Tensor) -> NDArray[np.int64]:
    return torch.as_tensor(ids, dtype=torch.int64, device="cpu").numpy()


def _by_part(parts: list[RecordingPart]) -> Iterator[tuple[RecordingPart, list[int]]]:
    """Yield each part once, with its positions in the list."""
    order = sorted(range(len(parts)), key=lambda index: parts[index].first)
    for _, group in groupby(order, key=lambda index: parts[index].first):
        chosen = list(group)
        yield parts[chosen[0]], chosen
