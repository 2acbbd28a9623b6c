"""A recorded signal: rows of a file, when each was recorded, and how to read them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nfa.errors import Refusal

Array = np.ndarray


@dataclass(frozen=True)
class Gap:
    """Before row `sample` (counted from 0) of a file `seconds` passed that it does not hold; None: it is not known.

    The `held` rows from `sample` on only hold the place of that time: nothing was recorded in them.
    """

    sample: int
    seconds: float | None
    held: int = 0


@dataclass(frozen=True)
class Segment:
    """Rows [start, stop) of a file, recorded without a gap from `onset` seconds after its first row on."""

    start: int
    stop: int
    onset: float = 0.0


@dataclass(frozen=True)
class Signal:
    """A recorded signal: its source, sampling rate, number of samples, and a function that reads rows [n, channels]."""

    name: str
    rate: float
    samples: int
    channels: tuple[str, ...]
    segments: tuple[Segment, ...]
    read: Callable[[int, int], Array]

    @property
    def seconds(self) -> float:
        """From the first sample to the end of the last, gaps included."""
        last = self.segments[-1]
        return last.onset + (last.stop - last.start) / self.rate


def in_memory(name: str, array: Array, rate: float, *, envelope: bool = False) -> Signal:
    """A signal that is an array [T, C], an envelope [T] or [T, 1]; a memory-mapped one stays on disk until it is read.

    Raises `Refusal` for arrays of another shape or kind.
    """
    shape = list(array.shape)
    if envelope and array.ndim == 1:
        array = array[:, None]
    channels = array.shape[1] if array.ndim == 2 else 0
    if array.dtype.kind not in "fiu" or not channels or not len(array) or (envelope and channels != 1):
        allowed = "real numbers [T] or [T, 1]" if envelope else "real numbers [T, C]"
        raise Refusal(f"{name} ({array.dtype}, shape {shape})", allowed, "save the array in this shape")

    def read(start: int, stop: int) -> Array:
        with np.errstate(invalid="ignore"):  # NaNs of the kind that signals: what is not finite is refused elsewhere
            return np.array(array[start:stop], dtype=np.float64)

    return Signal(name, rate, len(array), tuple(map(str, range(channels))), (Segment(0, len(array)),), read)


def placed(path: Path, samples: int, rate: float, gaps: Sequence[Gap], *, cut: bool) -> tuple[Segment, ...]:
    """Return the segments between the gaps of a file with this number of rows.

    Raises `Refusal` for any gap without `cut`, and always where it is not known when recording went on.
    """
    found, start, onset = [], 0, 0.0
    for gap in gaps:
        at = onset + (gap.sample - start) / rate
        if not cut or gap.seconds is None or gap.seconds < 0:
            raise _refused(path, gap, at, len(gaps))
        if gap.sample > start:
            found.append(Segment(start, gap.sample, onset))
        start, onset = gap.sample + gap.held, at + gap.seconds
    if samples > start:
        found.append(Segment(start, samples, onset))
    if not found:
        raise Refusal(f"{path} (it contains only a gap)", "recordings with samples", "leave it out")
    return tuple(found)


def _refused(path: Path, gap: Gap, at: float, count: int) -> Refusal:
    more = f"; {count} gaps in all" if count > 1 else ""
    got = f"{path} ({_described(gap)} at {at:.3f} s, sample {gap.sample} counted from 0{more})"
    if gap.seconds is None:
        remedy = "save the parts between gaps as separate recordings"
        return Refusal(got, "gaps of known length, with gaps=cut", remedy)
    if gap.seconds < 0:
        return Refusal(got, "increasing time stamps", "correct the time stamps, or leave the recording out")
    remedy = "gaps=cut splits recordings there; the envelope is assumed to continue through the gap"
    return Refusal(got, "recordings without gaps", remedy)


def _described(gap: Gap) -> str:
    if gap.seconds is None:
        return "a new segment begins after a gap of unknown length,"
    if gap.seconds < 0:
        return f"time stamps go back by {-gap.seconds:.4g} s"
    return f"{gap.seconds:.4g} s are missing"


def half_unit(text: str) -> float:
    """Return half a unit of the last digit of a written number, its largest rounding error.

    >>> half_unit("833.33"), half_unit("1000")
    (0.005, 0.5)
    """
    digits = text.strip().lower().partition("e")
    decimals = len(digits[0].partition(".")[2])
    return 0.5 * math.pow(10, int(digits[2] or 0) - decimals)
