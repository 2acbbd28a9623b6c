"""Recordings of EEG with the envelope of the speech that was heard, read window by window and never all at once.

An example is a window; its id is the place of its first sample among all samples of the data set, so that every
window at any start is an example with an id of its own.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nfa.config.eeg import RATE
from nfa.data.eeg_facts import Facts, examined, rows
from nfa.data.eeg_layout import SPLITS, Files, Part, faults_of, found, refused

__all__ = ["RATE", "SPLITS", "EEGData", "Part", "Windows", "load"]
Signal = NDArray[np.float64]


class Windows(NamedTuple):
    """n windows of T samples: EEG [n, T, C] and envelope [n, T, 1], both normalised, and each one's subject [n]."""

    eeg: Tensor
    envelope: Tensor
    subjects: Tensor


@dataclass(frozen=True, eq=False)
class EEGData:
    """Parts of recordings, all of `channels` channels at 64 Hz; `subjects` are those of the train parts, sorted.

    What is read is normalised: per recording and channel by mean and standard deviation (ddof 0) of the train part.
    """

    name: str
    folder: Path
    channels: int
    subjects: tuple[str, ...]
    parts: tuple[Part, ...]
    facts: Mapping[Path, Facts]

    def of(self, split: str) -> tuple[Part, ...]:
        """Parts of "train", "val" or "test"."""
        if split not in SPLITS:
            raise ValueError(f"no split {split!r} among {SPLITS}")
        return tuple(part for part in self.parts if part.split == split)

    def digest(self) -> str:
        """SHA-256 over names and contents of all files, the same wherever they lie."""
        content = hashlib.sha256()
        for path in (path for part in self.parts for path in (part.eeg, part.envelope)):
            content.update(f"{path.name}\n{self.facts[path].sha256}\n".encode())
        return content.hexdigest()

    def ids(self, split: str, window: int) -> list[int]:
        """All non-overlapping windows of `window` samples, from each part's start on; its rest is left out."""
        return [part.first + k * window for part in self.of(split) for k in range(part.samples // window)]

    def draw(self, window: int, per_recording: int, random: torch.Generator) -> Tensor:
        """Ids [train parts · per_recording], part by part, of windows that start anywhere with equal probability."""
        drawn = []
        for part in self.of("train"):
            if part.samples < window:
                raise ValueError(f"{part.eeg.name} has {part.samples} samples, fewer than a window of {window}")
            drawn.append(part.first + torch.randint(part.samples - window + 1, (per_recording,), generator=random))
        return torch.cat(drawn)

    def part_of(self, ids: Sequence[int] | Tensor) -> list[Part]:
        """The part that each id lies in; `ValueError` for one outside all of them."""
        places = _places(ids)
        end = self.parts[-1].first + self.parts[-1].samples
        if ((places < 0) | (places >= end)).any():
            raise ValueError(f"ids must be within 0…{end - 1}")
        return [self.parts[index] for index in np.searchsorted(self._firsts, places, side="right") - 1]

    def windows(self, ids: Sequence[int] | Tensor, window: int) -> Windows:
        """Windows of `window` samples that start at `ids`, in float32; `ValueError` where one leaves its part."""
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
        return Windows(eeg, envelope, torch.tensor([self._index[part.subject] for part in parts], dtype=torch.int64))

    def arrays(self, part: Part) -> tuple[Signal, Signal]:
        """A whole part at once, normalised, in float64: EEG [T, C], envelope [T, 1]."""
        whole = [(0, part.samples)]
        eeg, envelope = (next(self._normalised(part, path, whole)) for path in (part.eeg, part.envelope))
        return eeg, envelope

    def _normalised(self, part: Part, path: Path, spans: list[tuple[int, int]]) -> Iterator[Signal]:
        train = self._train[part.recording]
        facts = self.facts[train.eeg if path == part.eeg else train.envelope]
        mean, std = np.array(facts.mean), np.array(facts.std)
        for signal in rows(path, self.facts[path], *spans):
            signal -= mean
            signal /= std
            yield signal

    @cached_property
    def _firsts(self) -> NDArray[np.int64]:
        return np.array([part.first for part in self.parts])

    @cached_property
    def _index(self) -> dict[str, int]:
        return {subject: index for index, subject in enumerate(self.subjects)}

    @cached_property
    def _train(self) -> dict[str, Part]:
        return {part.recording: part for part in self.of("train")}


def load(folder: Path, *, window: int, name: str = "") -> EEGData:
    """The data set of a folder, whose parts all hold a window of `window` samples; called `name`, else as the folder.

    One `Refusal` names every bad file. Files are read from end to end the first time only.
    """
    if window < 1:
        raise ValueError(f"a window has at least 1 sample, not {window}")
    name = name or folder.resolve().name
    files, faults = found(folder)
    facts = examined(folder, (path for pair in files.values() for path in pair.values()))
    faults += faults_of(files, facts, window) if files else []
    if faults:
        raise refused(name, folder, faults, window)
    parts = _parts(files, facts)
    channels = facts[parts[0].eeg].channels
    subjects = tuple(sorted({part.subject for part in parts if part.split == "train"}))
    return EEGData(name, folder, channels, subjects, parts, facts)


def _parts(files: Files, facts: Mapping[Path, Facts]) -> tuple[Part, ...]:
    parts: list[Part] = []
    first = 0
    for (split, subject, stimulus), pair in files.items():
        samples = facts[pair["eeg"]].samples
        parts.append(Part(split, subject, stimulus, pair["eeg"], pair["envelope"], samples, first))
        first += samples
    return tuple(parts)


def _places(ids: Sequence[int] | Tensor) -> NDArray[np.int64]:
    return torch.as_tensor(ids, dtype=torch.int64, device="cpu").numpy()


def _by_part(parts: list[Part]) -> Iterator[tuple[Part, list[int]]]:
    """Each part once, with the positions at which it stands in the list."""
    order = sorted(range(len(parts)), key=lambda index: parts[index].first)
    for _, group in groupby(order, key=lambda index: parts[index].first):
        chosen = list(group)
        yield parts[chosen[0]], chosen
