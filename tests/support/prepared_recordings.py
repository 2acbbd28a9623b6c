"""Folders of small EEG recordings, written and read in the obvious way."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from nfa.registry.families.eeg.preparation.filters import FilterSettings, check_flat, prepare, spans_of
from nfa.registry.families.eeg.preparation.signals import in_memory

SPLITS = ("train", "val", "test")


def stem(split: str, subject: int = 1, stimulus: int = 1) -> str:
    return f"{split}_-_sub-{subject:03d}_-_story-{stimulus}"


def save(folder: Path, stem: str, eeg: np.ndarray | None, envelope: np.ndarray | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("eeg", eeg), ("envelope", envelope)):
        if array is not None:
            np.save(folder / f"{stem}_-_{kind}.npy", array)


def signals(
    random: np.random.Generator, samples: int, channels: int, dtype: str = "float32"
) -> tuple[np.ndarray, np.ndarray]:
    """EEG with an offset and a scale of its own in every channel, and a non-negative envelope."""
    offsets, scales = 20 * random.standard_normal(channels), np.exp(2 * random.standard_normal(channels))
    eeg = offsets + scales * random.standard_normal((samples, channels))
    return eeg.astype(dtype), random.random((samples, 1)).astype(dtype)


def write(
    folder: Path,
    lengths: dict[tuple[str, int, int], int],
    channels: int = 3,
    *,
    dtype: str = "float32",
    order: Literal["C", "F"] = "C",
    seed: int = 0,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Parts of the given lengths by (split, subject, stimulus); what was written, by stem."""
    random, written = np.random.default_rng(seed), {}
    for key, samples in lengths.items():
        eeg, envelope = signals(random, samples, channels, dtype)
        written[stem(*key)] = (eeg, envelope)
        save(folder, stem(*key), np.asarray(eeg, order=order), envelope)
    return written


def small(subjects: int = 2, stimuli: int = 2) -> dict[tuple[str, int, int], int]:
    """Lengths that no window divides."""
    return {
        (split, subject, stimulus): base + 7 * subject + stimulus
        for split, base in (("train", 301), ("val", 97), ("test", 88))
        for subject in range(1, subjects + 1)
        for stimulus in range(1, stimuli + 1)
    }


def normalised(written: dict[str, tuple[np.ndarray, np.ndarray]], stem: str) -> tuple[np.ndarray, np.ndarray]:
    """By mean and standard deviation of the train part, the textbook way."""
    train = written["train" + stem[stem.index("_-_") :]]
    eeg, envelope = (
        (signal.astype(float) - part.astype(float).mean(axis=0)) / part.astype(float).std(axis=0)
        for signal, part in zip(written[stem], train, strict=True)
    )
    return eeg, envelope


def in_order(written: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[str]:
    return [name for split in SPLITS for name in sorted(written) if name.startswith(f"{split}_-_")]


def prepared_in_memory(
    eeg: np.ndarray, envelope: np.ndarray, *, eeg_rate: float, envelope_rate: float, **settings: Any
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Parts (EEG [T, C], envelope [T, 1]) by split of one recording; `settings` are those of `FilterSettings`."""
    how = FilterSettings(**settings)
    both = in_memory("EEG", eeg, eeg_rate), in_memory("envelope", envelope, envelope_rate, envelope=True)
    spans = spans_of(*both, how)
    made = prepare(both[0], spans, how, filtered=True), prepare(both[1], spans, how)
    for signal, one in zip(both, made, strict=True):
        check_flat(signal.name, signal.channels, one.scale, one.largest, "the train part")
    return {span.split: (made[0].parts[span], made[1].parts[span]) for span in spans}
