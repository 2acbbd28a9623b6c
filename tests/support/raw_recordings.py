"""Folders of EEG recordings, and the words that prepare them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nfa.registry.families.eeg.preparation.config import PrepareEEGConfig

NAME = "prepare_eeg"
SECONDS, EEG_RATE, ENVELOPE_RATE, CHANNELS = 20, 250, 128, 4
RECORDINGS = ("sub-001_-_story", "sub-001_-_tale", "sub-002_-_story")


def signals(seed: int, seconds: float = SECONDS) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return (
        5 + random.standard_normal((round(seconds * EEG_RATE), CHANNELS)),
        random.random(round(seconds * ENVELOPE_RATE)),
    )


def save(folder: Path, name: str, array: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / name, array)


def recorded_folder(folder: Path) -> Path:
    """Three recordings of noise, and a file that is none."""
    for seed, name in enumerate(RECORDINGS):
        recorded, envelope = signals(seed)
        save(folder, f"{name}_-_eeg.npy", recorded)
        save(folder, f"{name}_-_envelope.npy", envelope if seed else envelope[:, None])
    (folder / "notes.txt").write_text("nothing")
    return folder


def given(source: Path, target: Path, /, **more: Any) -> PrepareEEGConfig:
    rates = {"eeg_rate": EEG_RATE, "envelope_rate": ENVELOPE_RATE}
    return PrepareEEGConfig(**{"source": str(source), "target": str(target), **rates, **more})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mne_file(source: Path, name: str, *, kinds: list[str] | None = None, rate: float = EEG_RATE) -> np.ndarray:
    """In volts, with channels that are no EEG between the others."""
    mne = pytest.importorskip("mne")
    kinds = kinds or ["eeg", "stim", "eeg", "misc", "eeg", "eeg"]
    info = mne.create_info([f"{kind}{i}" for i, kind in enumerate(kinds)], rate, kinds)
    data = np.random.default_rng(7).standard_normal((len(kinds), SECONDS * EEG_RATE)) * 2e-5 + 1e-2
    source.mkdir(parents=True, exist_ok=True)
    raw = mne.io.RawArray(data, info, verbose="ERROR")
    raw.info["bads"] = ["eeg2"] if "eeg2" in raw.ch_names else []
    raw.save(source / f"{name}_-_eeg.fif", fmt="double", verbose="ERROR")
    save(source, f"{name}_-_envelope.npy", signals(7)[1])
    return data[[i for i, kind in enumerate(kinds) if kind == "eeg"]].T
