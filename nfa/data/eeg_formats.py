"""Recorded EEG and envelopes in files: .npy, and for EEG every format that MNE reads."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from nfa.content import mapped_array
from nfa.data.eeg_preparation import Signal, in_memory
from nfa.data.eeg_recordings import Recording
from nfa.errors import Refusal, reading

WHOLE, REMEDY = "whole files in the format of their ending", "copy or export it again"


def open_recording(recording: Recording, eeg_rate: float, envelope_rate: float) -> tuple[Signal, Signal]:
    """EEG and envelope, of which only headers are read; a rate of 0 is the EEG file's own and that of the EEG.

    `Refusal` for files that cannot be read or hold something else, and where a file says another rate than `eeg_rate`.
    """
    eeg = _open_mne(recording.eeg, eeg_rate) if recording.needs_mne else _open_npy(recording.eeg, eeg_rate)
    if eeg.samples < len(eeg.channels):
        raise Refusal(
            f"{eeg.name} (shape {[eeg.samples, len(eeg.channels)]}: fewer samples than channels)",
            "[samples, channels]",
            "save the transposed array",
        )
    return eeg, _open_npy(recording.envelope, envelope_rate or eeg.rate, envelope=True)


def _open_npy(path: Path, rate: float, *, envelope: bool = False) -> Signal:
    with reading(path, WHOLE, REMEDY):
        mapped, _ = mapped_array(path)
    array: np.ndarray[Any, Any] = mapped[:, None] if envelope and mapped.ndim == 1 else mapped
    channels = array.shape[1] if array.ndim == 2 else 0
    if array.dtype.kind not in "fiu" or not channels or not len(array) or (envelope and channels != 1):
        allowed = "real numbers [T] or [T, 1]" if envelope else "real numbers [T, C]"
        raise Refusal(f"{path} ({array.dtype}, shape {list(array.shape)})", allowed, "save the array in this shape")
    return in_memory(str(path), array, rate)


def _open_mne(path: Path, rate: float) -> Signal:
    import mne

    with reading(path, WHOLE, REMEDY), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that is not as MNE would have it, a header with oddities
        raw = mne.io.read_raw(path, preload=False, verbose="ERROR")
    said = float(raw.info["sfreq"])
    if rate and rate != said:
        raise Refusal(
            f"eeg_rate={rate:g} with {path}", f"the rate that the file says, {said:g} Hz", "leave eeg_rate out"
        )
    picks = mne.pick_types(raw.info, meg=False, eeg=True, exclude=())
    if not len(picks):
        kinds = ", ".join(sorted(set(raw.get_channel_types())))
        raise Refusal(
            f"{path} (no EEG channel among {kinds})", "EEG channels", "set the channels' types and save again"
        )

    def read(start: int, stop: int) -> Any:
        with reading(path, WHOLE, REMEDY):
            found = raw.get_data(picks=picks, start=start, stop=stop, verbose="ERROR")
        return np.ascontiguousarray(found.T, dtype=np.float64)

    return Signal(str(path), said, int(raw.n_times), tuple(raw.ch_names[pick] for pick in picks), read)
