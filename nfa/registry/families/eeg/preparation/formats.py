"""Recorded EEG and envelopes in files: .npy, and for EEG every format that MNE reads."""

from dataclasses import dataclass, replace
from pathlib import Path

from nfa.content import mapped_array
from nfa.errors import Refusal, reading
from nfa.registry.families.eeg.preparation.channels import choose
from nfa.registry.families.eeg.preparation.config import PrepareEEGConfig
from nfa.registry.families.eeg.preparation.mne_files import REMEDY, WHOLE, open_mne
from nfa.registry.families.eeg.preparation.recordings import Recording
from nfa.registry.families.eeg.preparation.signals import Signal, in_memory


@dataclass(frozen=True)
class OpenedRecording:
    """A recording of which only headers are read: EEG, envelope, and what is to be said of its channels and files."""

    eeg: Signal
    envelope: Signal
    channels: str
    notes: tuple[str, ...]


def open_recording(recording: Recording, config: PrepareEEGConfig) -> OpenedRecording:
    """EEG and envelope; a rate of 0 is the EEG file's own and that of the EEG.

    `Refusal` for files that cannot be read or hold something else, where a file says another rate than `eeg_rate`, and
    for gaps in time unless they are to be cut at.
    """
    notes: list[str] = []
    if recording.needs_mne:
        eeg, channels = open_mne(recording.eeg, config, notes)
    else:
        eeg, channels = _open_columns(recording.eeg, config)
    if eeg.samples < len(eeg.channels):
        got = f"{eeg.name} (shape {[eeg.samples, len(eeg.channels)]}: fewer samples than channels)"
        raise Refusal(got, "[samples, channels]", "save the transposed array")
    envelope = _open_npy(recording.envelope, config.envelope_rate or eeg.rate, envelope=True)
    return OpenedRecording(eeg, envelope, channels, tuple(notes))


def _open_npy(path: Path, rate: float, *, envelope: bool = False) -> Signal:
    with reading(path, WHOLE, REMEDY):
        array, _ = mapped_array(path)
    return in_memory(str(path), array, rate, envelope=envelope)


def _open_columns(path: Path, config: PrepareEEGConfig) -> tuple[Signal, str]:
    """EEG in an array, whose channels are called by their numbers, and which of them are used."""
    whole = _open_npy(path, config.eeg_rate)
    chosen = choose(path, whole.channels, ["eeg"] * len(whole.channels), config.channels)
    used = list(chosen.used)
    names = tuple(whole.channels[place] for place in used)
    signal = replace(whole, channels=names, read=lambda start, stop: whole.read(start, stop)[:, used])
    return signal, chosen.described(whole.channels)
