"""Files that the steps read: networks of older programs, EEG recordings, questions with answers."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

GIVEN = "given"  # the folder of these files


def old_networks(folder: Path) -> None:
    """Checkpoints of a bias-free ReLU network of two hidden layers, at three epochs."""
    target = folder / GIVEN
    target.mkdir()
    for epoch in (0, 1, 4):
        torch.manual_seed(epoch)
        sizes = ((64, 8), (8, 8), (8, 10))
        weights = [nn.Linear(i, o, bias=False).weight.detach() for i, o in sizes]
        names = ("first.0.weight", "middle.0.1.weight", "last.1.weight")
        state = dict(zip(names, weights, strict=True))
        torch.save({"state_dict": state}, target / f"model_epoch_{epoch}:digits:width:8:depth:2:act:ReLU:nn.pth")


def recordings(folder: Path) -> None:
    """EEG of two subjects who heard two stories: as arrays, and in another folder one as FIF."""
    target = folder / GIVEN
    (target / "fif").mkdir(parents=True)
    for subject in (1, 2):
        for story in (1, 2):
            envelope, eeg = _recording(10 * subject + story)
            name = f"sub-{subject:03d}_-_story-{story}"
            np.save(target / f"{name}_-_envelope.npy", envelope)
            np.save(target / f"{name}_-_eeg.npy", eeg)
    np.save(target / "fif" / "sub-001_-_story_-_envelope.npy", envelope)
    _fif(target / "fif" / "sub-001_-_story_-_eeg.fif", eeg)


def _recording(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An envelope at 128 Hz, and noise at 250 Hz with a bit of it in every channel."""
    random = np.random.default_rng(seed)
    envelope = random.random(60 * 128)
    heard = np.interp(np.arange(60 * 250) / 250, np.arange(60 * 128) / 128, envelope)
    return envelope, 5 + random.standard_normal((60 * 250, 3)) + heard[:, None]


def _fif(path: Path, eeg: np.ndarray) -> None:
    import mne

    info = mne.create_info([f"C{i}" for i in range(eeg.shape[1])], 250.0, "eeg")
    mne.io.RawArray(eeg.T * 1e-6, info, verbose="ERROR").save(path, fmt="double", verbose="ERROR")


def questions(folder: Path) -> None:
    """Questions of different lengths."""
    target = folder / GIVEN
    target.mkdir()
    lines = [
        json.dumps({"question": f"What is {n}{' and so on' * (n % 3)}?", "answer": f"It is {'very ' * (n % 4)}{n}."})
        for n in range(24)
    ]
    (target / "questions.jsonl").write_text("\n".join(lines), encoding="utf-8")
