"""Recorded EEG and speech envelopes become train, val and test parts at one rate, normalised by the train part.

Each part is filtered and resampled by itself, so nothing of val and test reaches the train part: neither through the
statistics nor through a filter.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from scipy import signal as filters

from nfa.errors import Refusal

SPLITS = ("train", "val", "test")
TOLERANCE = 0.5  # seconds by which an EEG and its envelope may differ
SHORTEST = 1.0  # seconds of a part
FLAT = 1e-10  # standard deviation, in units of the largest value, of a channel that is constant up to rounding
ZEROS = 10  # zero crossings of the anti-aliasing filter on either side, as scipy.signal.resample_poly has it

Array = np.ndarray


@dataclass(frozen=True)
class Settings:
    """What is made: samples a second, shares of time, cut-offs in Hz of the EEG's filter (0 = none)."""

    rate: int = 64
    train_share: float = 0.8
    val_share: float = 0.1
    highpass: float = 0.0
    lowpass: float = 0.0


@dataclass(frozen=True)
class Signal:
    """A recorded signal: where it is from, samples a second, their number, and how to read [stop − start, channels]."""

    name: str
    rate: float
    samples: int
    channels: tuple[str, ...]
    read: Callable[[int, int], Array]

    @property
    def seconds(self) -> float:
        return self.samples / self.rate


@dataclass(frozen=True)
class Prepared:
    """A signal's parts by split, float32 [T, C], and the mean and standard deviation [C] of the train part before."""

    parts: Mapping[str, Array]
    mean: Array
    deviation: Array


def prepare_arrays(
    eeg: Array,
    envelope: Array,
    *,
    eeg_rate: float,
    envelope_rate: float,
    rate: int = 64,
    train_share: float = 0.8,
    val_share: float = 0.1,
    highpass: float = 0.0,
    lowpass: float = 0.0,
) -> dict[str, tuple[Array, Array]]:
    """Parts (EEG [T, C], envelope [T, 1]) by split of one recording in memory: EEG [T, C], envelope [T] or [T, 1].

    Float32, `rate` samples a second, the longer signal cut to the shorter; each channel has mean 0 and standard
    deviation 1 (over T) in the train part, and in val and test what the same shift and scale give. Every part begins
    at the same moment in both signals, to half a sample of the recording. `Refusal` for signals that do not go
    together, are too short, not finite, or constant over the train part, and for cut-offs above half of `eeg_rate`.
    """
    settings = Settings(rate, train_share, val_share, highpass, lowpass)
    both = in_memory("EEG", eeg, eeg_rate), in_memory("envelope", envelope.reshape(len(envelope), -1), envelope_rate)
    edges = part_edges(*both, settings)
    first, second = prepare(both[0], edges, settings, filtered=True), prepare(both[1], edges, settings)
    return {split: (first.parts[split], second.parts[split]) for split in SPLITS}


def in_memory(name: str, array: Array, rate: float) -> Signal:
    """A signal that is an array [T, C]; a memory-mapped one stays on disk until it is read."""
    channels = tuple(map(str, range(array.shape[1])))

    def read(start: int, stop: int) -> Array:
        with np.errstate(invalid="ignore"):  # NaNs of the kind that signals: what is not finite is refused elsewhere
            return np.array(array[start:stop], dtype=np.float64)

    return Signal(name, rate, len(array), channels, read)


def part_edges(eeg: Signal, envelope: Signal, settings: Settings) -> dict[str, tuple[int, int]]:
    """First and past-the-last prepared sample of each split; both signals last as long as the shorter one.

    Where both rates allow it within a second, parts begin where either has a sample. `Refusal` for lengths that differ
    by more than half a second, a part below one second, and cut-offs that the EEG's rate does not have.
    """
    _check_pair(eeg, envelope, settings)
    total = math.floor(min(eeg.seconds, envelope.seconds) * settings.rate + 1e-6)
    step = math.lcm(*(_ratio(signal, settings).denominator for signal in (eeg, envelope)))
    step = step if step <= settings.rate else 1
    inner = [share * total for share in (settings.train_share, settings.train_share + settings.val_share)]
    edges = [0, *(math.floor(edge + 1e-6) // step * step for edge in inner), total]
    parts = dict(zip(SPLITS, pairwise(edges), strict=True))
    for split, (first, last) in parts.items():
        if last - first < SHORTEST * settings.rate:
            raise Refusal(
                f"{eeg.name} ({total / settings.rate:.2f} s, of it {(last - first) / settings.rate:.2f} s for {split})",
                f"at least {SHORTEST} s in each part",
                "leave the recording out, or change train_share and val_share",
            )
    return parts


def _check_pair(eeg: Signal, envelope: Signal, settings: Settings) -> None:
    if abs(eeg.seconds - envelope.seconds) > TOLERANCE:
        lasting = [f"{item.samples} samples at {item.rate:g} Hz = {item.seconds:.2f} s" for item in (eeg, envelope)]
        raise Refusal(
            f"{eeg.name} ({lasting[0]}) with {envelope.name} ({lasting[1]})",
            f"lengths that differ by at most {TOLERANCE} s",
            "check eeg_rate and envelope_rate, and whether the files belong together",
        )
    for name in ("highpass", "lowpass"):
        if getattr(settings, name) >= eeg.rate / 2:
            got = f"{name}={getattr(settings, name)} for {eeg.name} at {eeg.rate:g} Hz"
            raise Refusal(got, f"a cut-off below {eeg.rate / 2:g} Hz", f"a smaller {name}, or 0 for none")


def prepare(
    signal: Signal, edges: Mapping[str, tuple[int, int]], settings: Settings, *, filtered: bool = False
) -> Prepared:
    """The parts of a signal between `edges`; one is in memory in float64 at a time.

    `Refusal` for values that are not finite and channels that are constant over the train part.
    """
    parts: dict[str, Array] = {}
    mean = deviation = np.zeros(0)
    for split in SPLITS:
        recorded = _read(signal, edges[split], settings)
        largest = np.abs(recorded).max(axis=0)
        if filtered:
            _filter(recorded, signal.rate, settings)
        first, last = edges[split]
        part = resample(recorded, _ratio(signal, settings), last - first)
        if split == "train":
            mean, deviation = part.mean(axis=0), part.std(axis=0)
            _check_flat(signal, deviation, largest)
        parts[split] = ((part - mean) / deviation).astype(np.float32)
    return Prepared(parts, mean, deviation)


def resample(recorded: Array, ratio: Fraction, length: int) -> Array:
    """`length` samples [length, C] of a signal [T, C] at 1/`ratio` of its rate, without aliasing.

    Polyphase filtering of what is left around the line through a channel's first and last sample, so that offset and
    drift neither ring at the ends nor leak through the phases' unequal gains. Where a signal ends less than a sample
    early, its last value is repeated.
    """
    up, down = ratio.denominator, ratio.numerator
    if up == down:
        return recorded[:length]
    longest = max(up, down)
    window = filters.firwin(2 * ZEROS * longest + 1, 1 / longest, window=("kaiser", 5.0))
    found = np.empty((length, recorded.shape[1]))
    old, new = (np.arange(count) * step for count, step in ((len(recorded), 1.0), (length, float(ratio))))
    for channel, column in enumerate(recorded.T):
        slope = (column[-1] - column[0]) / max(1, len(column) - 1)
        rest = filters.resample_poly(column - (column[0] + slope * old), up, down, window=window)
        rest = np.pad(rest, (0, max(0, length - len(rest))), mode="edge")[:length]
        found[:, channel] = rest + (column[0] + slope * new)
    return found


def _ratio(signal: Signal, settings: Settings) -> Fraction:
    """Recorded samples per prepared one; the rate is taken as a fraction, right to 5 millionths at 1 kHz."""
    return Fraction(signal.rate).limit_denominator(200) / settings.rate


def _read(signal: Signal, edges: tuple[int, int], settings: Settings) -> Array:
    ratio = _ratio(signal, settings)
    start, stop = (min(round(edge * ratio), signal.samples) for edge in edges)
    recorded = signal.read(start, stop)
    if not np.isfinite(recorded).all():
        sample, channel = np.argwhere(~np.isfinite(recorded))[0]
        place = f"sample {start + sample} of channel {signal.channels[channel]}"
        raise Refusal(
            f"{signal.name} ({recorded[sample, channel]} at {place})",
            "finite values",
            "mend or leave out the recording",
        )
    return recorded


def _check_flat(signal: Signal, deviation: Array, largest: Array) -> None:
    flat = np.flatnonzero(deviation <= FLAT * largest)
    if len(flat):
        names = ", ".join(signal.channels[channel] for channel in flat)
        raise Refusal(
            f"{signal.name} (constant over the train part: channel {names})",
            "channels that vary",
            "mend the channel (interpolate it), or leave out the recording",
        )


def _filter(recorded: Array, rate: float, settings: Settings) -> None:
    """Butterworth of order 4, forwards and backwards (no phase, twice the attenuation), in place."""
    cuts = [cut for cut in (settings.highpass, settings.lowpass) if cut]
    if not cuts:
        return
    kind = "bandpass" if len(cuts) == 2 else "highpass" if settings.highpass else "lowpass"
    sections = filters.butter(4, cuts if len(cuts) == 2 else cuts[0], kind, fs=rate, output="sos")
    padding = min(len(recorded) - 1, int(3 * rate / min(cuts)))
    for column in recorded.T:
        offset = column.mean()
        column[:] = filters.sosfiltfilt(sections, column - offset, padlen=padding)
        if not settings.highpass:
            column += offset
