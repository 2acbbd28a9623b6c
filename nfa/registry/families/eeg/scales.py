"""Means and standard deviations of channels, of several recordings as of one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation (ddof 0) of each channel [C], and the number of samples."""

    samples: int
    mean: Values
    deviation: Values

    @classmethod
    def of(cls, signal: Values) -> "Scale":
        """Return the scale of a signal [T, C]."""
        return cls(len(signal), signal.mean(axis=0), signal.std(axis=0))

    def unusable(self) -> int | None:
        """The first channel that does not vary, or more than a number can say."""
        return next((place for place, each in enumerate(self.deviation) if not 0 < each < np.inf), None)

    def normalised(self, signal: Values) -> Values:
        """Return (x − mean) / deviation, or x − mean if the deviation is 0."""
        return np.asarray((signal - self.mean) / np.where(self.deviation, self.deviation, 1))

    def restored(self, normalised: Values) -> Values:
        """Return the signal before it was normalised."""
        return np.asarray(normalised * np.where(self.deviation, self.deviation, 1) + self.mean)


def normalised_by(split: str, unseen: str) -> str:
    """Return the source of a recording's scale in words; `unseen` is empty if all subjects have training recordings."""
    own = "its train part" if split == "time" else "the training recordings of its subject"
    words = {"first_minute": "the first minute of its first recording", "population": "all training recordings"}
    return f"{own}, of an unseen subject by {words[unseen]}" if unseen else own


def pooled(scales: Sequence[Scale]) -> Scale:
    """Return the scale of all samples together: M = Σ n m / N and S² = Σ n (s² + (m − M)²) / N.

    >>> parts = np.array([[1.0], [3.0]]), np.array([[8.0]])
    >>> pooled([Scale.of(part) for part in parts]) == Scale.of(np.concatenate(parts))
    True
    """
    if len(scales) == 1:
        return scales[0]
    counts = np.array([scale.samples for scale in scales], dtype=np.float64)
    shares = (counts / counts.sum())[:, None]
    means = np.stack([scale.mean for scale in scales])
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is no scale, and is told so
        mean = (shares * means).sum(axis=0)
        squares = np.stack([np.square(scale.deviation) for scale in scales]) + np.square(means - mean)
        return Scale(int(counts.sum()), mean, np.sqrt((shares * squares).sum(axis=0)))
