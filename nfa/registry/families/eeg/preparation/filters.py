"""Recorded EEG and speech envelopes become train, val and test parts at one rate, normalised by the train part.

Each part is filtered and resampled by itself, so nothing of val and test reaches the train part: neither through the
statistics nor through a filter.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from scipy import signal as filters

from nfa.errors import Refusal
from nfa.registry.families.eeg.layout import SPLITS
from nfa.registry.families.eeg.preparation.signals import Array, Segment, Signal
from nfa.registry.families.eeg.scales import Scale, pooled

TOLERANCE = 0.5  # seconds by which an EEG and its envelope may differ
SHORTEST = 1.0  # seconds of a part
FLAT = 1e-10  # standard deviation, in units of the largest value, of a channel that is constant up to rounding
MINUTE = 60  # seconds
ZEROS = 10  # zero crossings of the anti-aliasing filter on either side, as scipy.signal.resample_poly has it


@dataclass(frozen=True)
class FilterSettings:
    """Settings: sampling rate, shares of time, and cut-offs of the EEG's filter in Hz (0 = none)."""

    rate: int = 64
    train_share: float = 0.8
    val_share: float = 0.1
    highpass: float = 0.0
    lowpass: float = 0.0


@dataclass(frozen=True)
class Span:
    """Prepared samples [first, last) of a recording, counted from its start: a part of a split, or a piece of one."""

    split: str
    first: int
    last: int
    piece: str = ""  # "+1of2" where a gap divides the part

    @property
    def name(self) -> str:
        return self.split + self.piece


@dataclass(frozen=True)
class PreparedSignals:
    """A signal's parts by span, float32 [T, C], normalised by `scale`; `start` is the scale of its first minute before.

    `largest` [C] is the largest value that was recorded in what `scale` is of.
    """

    parts: Mapping[Span, Array]
    scale: Scale
    start: Scale
    largest: Array


def spans_of(eeg: Signal, envelope: Signal, settings: FilterSettings, whole: str = "") -> tuple[Span, ...]:
    """The parts of a recording, or all of it as the split `whole`, between its gaps; both signals go on to the
    shorter one's end.

    Where both rates allow it within a second, parts begin where either has a sample. Pieces below one second are left
    out. Raises `Refusal` for lengths that differ by more than half a second, a part without a second in one piece, and
    cut-offs that the EEG's rate does not have.
    """
    _check_pair(eeg, envelope, settings)
    total = math.floor(min(eeg.seconds, envelope.seconds) * settings.rate + 1e-6)
    step = math.lcm(*(_ratio(signal, settings).denominator for signal in (eeg, envelope)))
    step = step if step <= settings.rate else 1
    inner = [share * total for share in (settings.train_share, settings.train_share + settings.val_share)]
    edges = [0, *(math.floor(edge + 1e-6) // step * step for edge in inner), total]
    parts = {whole: (0, total)} if whole else dict(zip(SPLITS, pairwise(edges), strict=True))
    found: list[Span] = []
    for split, (first, last) in parts.items():
        pieces = _pieces(eeg, settings, first, last)
        if not pieces:
            longest = max([0, *(end - begin for begin, end in _within(eeg, settings, first, last))]) / settings.rate
            got = f"{eeg.name} ({total / settings.rate:.2f} s, of it {longest:.2f} s for {split})"
            allowed = f"at least {SHORTEST} s in each part"
            raise Refusal(got, allowed, "leave the recording out, or change train_share and val_share")
        names = [f"+{k}of{len(pieces)}" for k in range(1, len(pieces) + 1)] if len(pieces) > 1 else [""]
        found += [Span(split, *piece, name) for piece, name in zip(pieces, names, strict=True)]
    return tuple(found)


def _pieces(eeg: Signal, settings: FilterSettings, first: int, last: int) -> list[tuple[int, int]]:
    least = SHORTEST * settings.rate
    return [piece for piece in _within(eeg, settings, first, last) if piece[1] - piece[0] >= least]


def _within(eeg: Signal, settings: FilterSettings, first: int, last: int) -> list[tuple[int, int]]:
    """Return the parts of the prepared samples [first, last) that lie in each segment of the EEG."""
    found = []
    for segment in eeg.segments:
        until = segment.onset + (segment.stop - segment.start) / eeg.rate
        begin = max(first, math.ceil(segment.onset * settings.rate - 1e-6))
        found.append((begin, max(begin, min(last, math.floor(until * settings.rate + 1e-6)))))
    return found


def _check_pair(eeg: Signal, envelope: Signal, settings: FilterSettings) -> None:
    if abs(eeg.seconds - envelope.seconds) > TOLERANCE:
        lasting = [f"{item.samples} samples at {item.rate:g} Hz = {item.seconds:.2f} s" for item in (eeg, envelope)]
        got = f"{eeg.name} ({lasting[0]}) with {envelope.name} ({lasting[1]})"
        allowed = f"lengths that differ by at most {TOLERANCE} s"
        raise Refusal(got, allowed, "check eeg_rate and envelope_rate, and whether the files belong together")
    for name in ("highpass", "lowpass"):
        if getattr(settings, name) >= eeg.rate / 2:
            got = f"{name}={getattr(settings, name)} for {eeg.name} at {eeg.rate:g} Hz"
            raise Refusal(got, f"a cut-off below {eeg.rate / 2:g} Hz", f"a smaller {name}, or 0 for none")


def prepare(
    signal: Signal, spans: Sequence[Span], settings: FilterSettings, *, filtered: bool = False
) -> PreparedSignals:
    """The parts of a signal, normalised by what is for training, or by all where nothing is; a channel that is
    constant there is only shifted.

    One split is in memory in float64 at a time. Raises `Refusal` for values that are not finite.
    """
    basis = "train" if any(span.split == "train" for span in spans) else spans[0].split
    parts: dict[Span, Array] = {}
    scale, start, largest = Scale(0, np.zeros(0), np.zeros(0)), Scale(0, np.zeros(0), np.zeros(0)), np.zeros(0)
    for split in dict.fromkeys(span.split for span in spans):
        own = [span for span in spans if span.split == split]
        recorded = [_recorded(signal, span, settings, filtered=filtered) for span in own]
        if split == basis:
            scale = pooled([Scale.of(part) for part, _ in recorded])
            rows = MINUTE * settings.rate
            start = Scale.of(np.concatenate([part[:rows] for part, _ in recorded])[:rows])
            largest = np.max([most for _, most in recorded], axis=0)
        for span, (part, _) in zip(own, recorded, strict=True):
            parts[span] = scale.normalised(part).astype(np.float32)
    return PreparedSignals(parts, scale, start, largest)


def _recorded(signal: Signal, span: Span, settings: FilterSettings, *, filtered: bool) -> tuple[Array, Array]:
    """A span at the new rate, and the largest value [C] that was recorded in it."""
    recorded = _read(signal, span, settings)
    largest = np.abs(recorded).max(axis=0)
    if filtered:
        _filter(recorded, signal.rate, settings)
    return resample(recorded, _ratio(signal, settings), span.last - span.first), largest


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


def _ratio(signal: Signal, settings: FilterSettings) -> Fraction:
    """Recorded samples per prepared one; the rate is taken as a fraction, right to 5 millionths at 1 kHz."""
    return Fraction(signal.rate).limit_denominator(200) / settings.rate


def _read(signal: Signal, span: Span, settings: FilterSettings) -> Array:
    segment = _segment(signal, span, settings)
    before = segment.onset * signal.rate - segment.start
    ratio = _ratio(signal, settings)
    start, stop = (min(round(edge * ratio - before), segment.stop) for edge in (span.first, span.last))
    recorded = signal.read(start, stop)
    if not np.isfinite(recorded).all():
        sample, channel = np.argwhere(~np.isfinite(recorded))[0]
        place = f"sample {start + sample} of channel {signal.channels[channel]}"
        got = f"{signal.name} ({recorded[sample, channel]} at {place})"
        raise Refusal(got, "finite values", "correct or leave out the recording")
    return recorded


def _segment(signal: Signal, span: Span, settings: FilterSettings) -> Segment:
    """The segment that a span lies in: the last one that begins before it."""
    begun = [segment for segment in signal.segments if segment.onset * settings.rate <= span.first + 1e-6]
    return begun[-1] if begun else signal.segments[0]


def check_flat(name: str, channels: Sequence[str], scale: Scale, largest: Array, over: str) -> None:
    """Raise `Refusal` for channels that are constant up to rounding, whose largest value is `largest` [C]."""
    flat = np.flatnonzero(scale.deviation <= FLAT * largest).tolist()
    if flat:
        names = ", ".join(channels[channel] for channel in flat)
        got = f"{name} (constant over {over}: channel {names})"
        raise Refusal(got, "channels that vary", "repair the channel (interpolate it), or leave out the recording")


def _filter(recorded: Array, rate: float, settings: FilterSettings) -> None:
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
