"""Recorded EEG and envelopes in files: .npy, and for EEG every format that MNE reads."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nfa.console import stage
from nfa.content import mapped_array
from nfa.errors import SHOWN, Refusal, reading
from nfa.registry.families.eeg.preparation import brainvision, edf_stamps, fif_tags, gaps, persyst
from nfa.registry.families.eeg.preparation.channels import choose
from nfa.registry.families.eeg.preparation.config import PrepareEEGConfig
from nfa.registry.families.eeg.preparation.recordings import Recording
from nfa.registry.families.eeg.preparation.signals import Array, Signal, half_unit, in_memory, placed


@dataclass(frozen=True)
class OpenedRecording:
    """A recording of which only headers have been read: EEG, envelope, and notes on channels and files."""

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


SINGLE = 2.0**-23  # relative precision of a rate where a file does not say how it was written
WHOLE, REMEDY = "whole files in the format of their ending", "copy or export it again"


def open_mne(path: Path, config: PrepareEEGConfig, notes: list[str]) -> tuple[Signal, str]:
    """The EEG in a file, of which only headers are read, and which of its channels are used, in a line.

    `Refusal` for a file that cannot be read to its end, that says another rate than `config.eeg_rate`, or has gaps that
    `config.gaps` does not allow. What is to be said of the file is appended to `notes`.
    """
    import mne

    with _telling(path, notes.append):
        whole = mne.io.read_raw(path, preload=False, verbose="WARNING", **_checked(path, notes))
        chosen = choose(path, whole.ch_names, whole.get_channel_types(), config.channels)
        names = [whole.ch_names[place] for place in chosen.used]
        raw = _at_their_rate(path, whole, names)
        picks = [raw.ch_names.index(name) for name in names]
        rate, samples = _rate(path, raw.info["sfreq"], config.eeg_rate), int(raw.n_times)
        segments = placed(path, samples, rate, gaps.gaps_of(path, raw, rate), cut=config.gaps == "cut")
    if not gaps.are_seen(path):
        notes.append(f"{path.name}: time stamps of this format are not read; the recording is assumed to have no gaps")

    def read(start: int, stop: int) -> Array:
        with _telling(path, lambda line: stage("notice", line)):
            data = raw.get_data(picks=picks, start=start, stop=stop, verbose="WARNING")
        return np.ascontiguousarray(data.T, dtype=np.float64)

    try:
        read(samples - 1, samples)
    except Refusal as error:
        got = f"{path} (the last of the {samples} samples stated in its header cannot be read)"
        raise Refusal(got, WHOLE, REMEDY) from error
    return Signal(str(path), rate, samples, tuple(names), segments, read), chosen.described(whole.ch_names)


def _checked(path: Path, notes: list[str]) -> dict[str, Any]:
    """Check the files of some formats, and return arguments that MNE needs for them."""
    if path.name.lower().endswith(fif_tags.ENDINGS):
        fif_tags.check_chain(path)
    if path.suffix.lower() in edf_stamps.ENDINGS:
        edf_stamps.check_whole(path, edf_stamps.header_of(path))
    if path.suffix.lower() == persyst.ENDING:
        persyst.check_pointed(path)
    if path.suffix.lower() not in brainvision.ENDINGS:
        return {}
    header = brainvision.header_of(path)
    brainvision.check_whole(path, header)
    notes.extend(header.notes)
    return {"overrides": {"data_fname": str(header.data), "marker_fname": str(header.markers or "") or False}}


def _at_their_rate(path: Path, raw: Any, names: Sequence[str]) -> Any:
    """EDF has a rate for each channel: without those that are faster than the chosen ones, MNE resamples nothing."""
    if path.suffix.lower() not in edf_stamps.ENDINGS:
        return raw
    header = edf_stamps.header_of(path)
    seconds = float(header.seconds)
    rates = {label: samples / seconds for label, samples in zip(header.labels, header.samples, strict=True)}
    if len(rates) < len(header.labels) or max(rates[name] for name in names) >= raw.info["sfreq"]:
        return raw
    import mne

    return mne.io.read_raw(path, preload=False, verbose="WARNING", include=list(names))


def _rate(path: Path, said: float, asked: float) -> float:
    """Return the configured rate if it agrees with the file's within its precision; raise `Refusal` otherwise."""
    if asked and abs(asked - said) > said * _precision(path):
        got = f"eeg_rate={asked:.10g} with {path}"
        raise Refusal(got, f"the rate stated in the file, {said:.10g} Hz", "leave eeg_rate out")
    return asked or float(said)


def _precision(path: Path) -> float:
    """Return the relative precision with which a file states its rate."""
    written = ""
    if path.suffix.lower() in brainvision.ENDINGS:
        written = brainvision.header_of(path).entries.get("samplinginterval", "")
    elif path.suffix.lower() in edf_stamps.ENDINGS and (header := edf_stamps.header_of(path)).slack:
        written = header.seconds
    return max(SINGLE, half_unit(written) / float(written)) if written else SINGLE


@contextmanager
def _telling(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Report MNE's warnings as single lines, and turn its errors into refusals."""
    logger, logged = logging.getLogger("mne"), _Logged()
    handlers, logger.handlers = logger.handlers, [logged]
    try:
        with reading(path, WHOLE, REMEDY), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        logger.handlers = handlers
    for text in dict.fromkeys([*(str(each.message) for each in caught), *logged.texts]):
        tell(f"{path.name}: {' '.join(text.split())[:SHOWN]}")


class _Logged(logging.Handler):
    """Collects log messages."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
