"""Simulated EEG that follows a simulated speech envelope, written in the layout of recorded data sets.

Every channel of the EEG is the envelope convolved with a temporal response function, plus 1/f noise. Each envelope,
response and noise has random numbers of its own, so that more subjects or stimuli leave the others' data as they are.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nfa.console import bar
from nfa.content import write_array
from nfa.registry import folders
from nfa.registry.families.eeg.config import RATE
from nfa.registry.families.eeg.splits import assigned
from nfa.seeding import generator
from nfa.unfinished import made_once

VERSION = 1  # another one whenever the same settings give other data
BAND = (2.0, 8.0)  # Hz, of speech's modulations
HIGH_PASS = 0.5  # Hz, below which prepared EEG has nothing
SUPPORT = (0.1, 0.4)  # seconds after the envelope, of responses
LAGS = int(SUPPORT[1] * RATE) + 1
SOURCES = 4
SHARES = {"train": (0, 60), "val": (60, 80), "test": (80, 100)}  # percent of a recording
Signal = NDArray[np.float64]


@dataclass(frozen=True)
class Simulation:
    """Settings of the simulation: every subject hears every stimulus; `snr_db` holds for each recording."""

    subjects: int = 6
    stimuli: int = 3
    seconds: int = 300
    channels: int = 16
    snr_db: float = -10.0
    seed: int = 1717
    split: str = "time"

    def __post_init__(self) -> None:
        for name in ("subjects", "stimuli", "seconds", "channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")

    @property
    def samples(self) -> int:
        return self.seconds * RATE


class SimulatedRecording(NamedTuple):
    """Envelope [T, 1], and the two components of the EEG: response [T, C] and noise [T, C]."""

    envelope: Signal
    response: Signal
    noise: Signal


def envelope(settings: Simulation, stimulus: int) -> Signal:
    """A stimulus's envelope [T, 1] of mean 1: log-normal, its logarithm Gaussian within 2–8 Hz, strongest at 4 Hz."""
    octaves = np.log2(np.maximum(_frequencies(settings), 1e-3) / np.sqrt(BAND[0] * BAND[1]))
    gains = np.where(np.abs(octaves) < 1, np.cos(np.pi / 2 * octaves), 0)
    carrier = _filtered(_gaussian(settings, f"envelope/{stimulus}", settings.samples, 1), gains)
    values = np.exp(0.5 * carrier / max(float(carrier.std()), 1e-12))
    return np.asarray(values / values.mean())


def responses(settings: Simulation, subject: int) -> Signal:
    """A subject's temporal response functions [lags, C] for lags of 0, 1, … samples, zero outside of 100–400 ms.

    Sources respond at a latency, with a width and an amplitude that the group has in common and a subject varies, and
    reach the channels through a mixing that is nearly the group's.
    """
    centres = np.linspace(0.15, 0.32, SOURCES) + 0.012 * _own(settings, subject, "latency", SOURCES)
    widths = 0.03 * np.exp(0.2 * _own(settings, subject, "width", SOURCES))
    signs = np.where(np.arange(SOURCES) % 2, -1.0, 1.0)
    amplitudes = signs * np.exp(0.3 * _own(settings, subject, "amplitude", SOURCES))
    seconds = np.arange(LAGS)[:, None] / RATE
    courses = amplitudes * np.exp(-0.5 * ((seconds - centres) / widths) ** 2)
    return _mixed(_window(seconds) * courses, _topography(settings, subject))


def response(heard: Signal, functions: Signal) -> Signal:
    """Envelope [T, 1] without its mean, convolved with functions [lags, C]: [T, C]; silence came before."""
    centred = heard - heard.mean()
    total = np.zeros((len(heard), functions.shape[1]))
    for lag, weights in enumerate(functions[: len(heard)]):
        total[lag:] += centred[: len(heard) - lag] * weights
    return total


def noise(settings: Simulation, subject: int, stimulus: int) -> Signal:
    """Noise [T, C] with power as 1/f from 0.5 Hz on and none below; neighbouring channels share some of it."""
    frequencies = _frequencies(settings)
    gains = np.where(frequencies < HIGH_PASS, 0, np.maximum(frequencies, HIGH_PASS) ** -0.5)
    white = _gaussian(settings, f"noise/{subject}/{stimulus}", settings.samples, settings.channels)
    return _mixed(_filtered(white, gains), _neighbours(settings.channels))


def recording(settings: Simulation, subject: int, stimulus: int) -> SimulatedRecording:
    """Return a recording; the response has unit power, and the noise has the power given by `snr_db`."""
    heard = envelope(settings, stimulus)
    signal, disturbance = response(heard, responses(settings, subject)), noise(settings, subject, stimulus)
    scale = 10 ** (-settings.snr_db / 20) / np.sqrt(power(disturbance))
    return SimulatedRecording(heard, signal / np.sqrt(power(signal)), disturbance * scale)


def power(signal: Signal) -> float:
    """Variance over time of [T, C], averaged over channels."""
    return float(signal.var(axis=0).mean())


def simulate(settings: Simulation, folder: Path) -> None:
    """Write all recordings, float32: with `split` "time" the first 60 % of each as train, the next 20 % as val, the
    last as test; else as nearly such shares of whole recordings, or of subjects, as there can be."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = list(product(range(settings.subjects), range(settings.stimuli)))
    names = {pair: (f"sub-{pair[0] + 1:03d}", f"simulated-{pair[1] + 1:02d}") for pair in pairs}
    held = held_out(settings, list(names.values()))
    for pair in bar(pairs, "simulating", unit="recording"):
        heard, signal, disturbance = recording(settings, *pair)
        parts = {held[names[pair]]: (0, 100)} if held else SHARES
        for split, (start, stop) in parts.items():
            part = slice(settings.samples * start // 100, settings.samples * stop // 100)
            stem = "_-_".join((split, *names[pair]))
            write_array(folder / f"{stem}_-_eeg.npy", (signal + disturbance)[part].astype(np.float32))
            write_array(folder / f"{stem}_-_envelope.npy", heard[part].astype(np.float32))


def held_out(settings: Simulation, recordings: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The split of each recording, subject and stimulus; empty if each is divided in time."""
    shares = {split: (stop - start) / 100 for split, (start, stop) in SHARES.items()}
    return {} if settings.split == "time" else assigned(recordings, settings.split, shares, settings.seed)


def simulated_folder(settings: Simulation) -> Path:
    """The folder of a simulated data set in the cache, made where missing: whole or not at all."""
    asked = json.dumps({"version": VERSION, **asdict(settings)}, sort_keys=True)
    target = folders.cache_folder("simulated-eeg") / hashlib.sha256(asked.encode()).hexdigest()[:16]
    return made_once(target, lambda folder: simulate(settings, folder))


def _gaussian(settings: Simulation, purpose: str, *shape: int) -> Signal:
    random = generator(settings.seed, f"simulated-eeg/{purpose}")
    return np.asarray(torch.randn(shape, generator=random, dtype=torch.float64).numpy())


def _own(settings: Simulation, subject: int, what: str, *shape: int) -> Signal:
    return _gaussian(settings, f"subject/{subject}/{what}", *shape)


def _frequencies(settings: Simulation) -> Signal:
    return np.asarray(np.fft.rfftfreq(settings.samples, 1 / RATE), dtype=np.float64)


def _filtered(signal: Signal, gains: Signal) -> Signal:
    spectrum = np.fft.rfft(signal, axis=0) * gains[:, None]
    return np.asarray(np.fft.irfft(spectrum, len(signal), axis=0))


def _window(seconds: Signal) -> Signal:
    """Zero outside of the support, 1 within it, with edges of a cosine."""
    edge = 0.03
    inside = np.minimum(seconds - SUPPORT[0], SUPPORT[1] - seconds)
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.clip(inside / edge, 0, 1)))


def _topography(settings: Simulation, subject: int) -> Signal:
    """Return the weight of each source at each channel [sources, C]."""
    group = _gaussian(settings, "topography", SOURCES, settings.channels)
    own = _own(settings, subject, "topography", SOURCES, settings.channels)
    return _mixed(group + 0.3 * own, _neighbours(settings.channels))


def _mixed(sources: Signal, weights: Signal) -> Signal:
    """Their product, with sums in one order whatever the machine's threads."""
    return np.asarray(np.einsum("tk,kc->tc", sources, weights))


def _neighbours(channels: int) -> Signal:
    """Return a mixing matrix [C, C] of channels on a ring that keeps unit power for independent inputs."""
    apart = np.abs(np.arange(channels)[:, None] - np.arange(channels))
    weights = np.exp(-0.5 * np.minimum(apart, channels - apart) ** 2)
    return np.asarray(weights / np.sqrt(np.square(weights).sum(axis=0)))
