"""Time-lagged ridge regression: an envelope decoded from the EEG that follows it (a backward model)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64


class LaggedRidge:
    """min_w Σ_t (y(t) − Σ_{c,l} w[c,l] x_c(t+l))² + λ ‖w‖², lags l = 0 … L−1, over all recordings that were added.

    Signals are zero outside their recording and t runs over all integers, so XᵀX[(c,l),(c′,l′)] = R_cc′(l′−l) with
    R_cc′(d) = Σ_t x_c(t) x_c′(t+d), R_cc′(−d) = R_c′c(d): C²L products a sample instead of (CL)², and memory for
    L C² + CL sums however many recordings there are. There is no intercept: signals are expected to be centred.
    Crosse et al. 2016, The multivariate temporal response function toolbox, doi:10.3389/fnhum.2016.00604.

    Raises `ValueError` for fewer than one channel or lag.
    """

    def __init__(self, channels: int, lags: int) -> None:
        if channels < 1 or lags < 1:
            raise ValueError(f"{channels} channels and {lags} lags: at least one of each is needed")
        self._lagged = np.zeros((lags, channels, channels))
        self._cross = np.zeros((channels, lags))

    def add(self, eeg: Float64[np.ndarray, "T C"], envelope: Float64[np.ndarray, " T"]) -> None:
        """Add a recording; raise `ValueError` for another number of channels or for unequal lengths."""
        if eeg.shape[1] != len(self._cross) or len(eeg) != len(envelope):
            raise ValueError(f"EEG {eeg.shape}, envelope {envelope.shape}: not T × {len(self._cross)} and T")
        samples = len(eeg)
        for lag in range(min(len(self._lagged), samples)):
            self._lagged[lag] += eeg[: samples - lag].T @ eeg[lag:]
            self._cross[:, lag] += eeg[lag:].T @ envelope[: samples - lag]

    def join(self, other: "LaggedRidge") -> None:
        """Add all recordings of another instance; raise `ValueError` for other channels or lags."""
        if other._lagged.shape != self._lagged.shape:
            raise ValueError(f"{other._lagged.shape}: not {self._lagged.shape} lags and channels")
        self._lagged += other._lagged
        self._cross += other._cross

    def weights(self, penalties: Sequence[float]) -> Float64[np.ndarray, "p C L"]:
        """w for every λ = penalty × trace(XᵀX)/(CL), by one eigendecomposition; zero where all EEG was zero.

        Raises `ValueError` for a penalty that is not positive and finite.
        """
        if not all(0 < penalty < np.inf for penalty in penalties):
            raise ValueError(f"penalties {list(penalties)}: positive and finite ones are needed")
        gram = self._gram()
        unit = gram.trace() / len(gram)
        if unit == 0:
            return np.zeros((len(penalties), *self._cross.shape))
        values, vectors = np.linalg.eigh(gram)
        shrunk = self._cross.ravel() @ vectors / (values.clip(min=0) + np.outer(penalties, [unit]))
        return np.asarray((shrunk @ vectors.T).reshape(-1, *self._cross.shape))

    def _gram(self) -> Float64[np.ndarray, "CL CL"]:
        lags, channels, _ = self._lagged.shape
        by_difference = np.concatenate([self._lagged[:0:-1].transpose(0, 2, 1), self._lagged])
        difference = np.arange(lags) - np.arange(lags)[:, None] + lags - 1  # of l′ and l, from −(L−1) on
        blocks = by_difference[difference].transpose(2, 0, 3, 1)
        return np.asarray(blocks.reshape(channels * lags, channels * lags))


def predict(weights: Float64[np.ndarray, "C L"], eeg: Float[np.ndarray, "n T C"]) -> Float64[np.ndarray, "n T"]:
    """ŷ(t) = Σ_{c,l} w[c,l] x_c(t+l) in each of n windows, outside which x is taken as zero."""
    by_lag = eeg @ weights
    samples = eeg.shape[1]
    predicted = np.zeros(eeg.shape[:2])
    for lag in range(min(weights.shape[1], samples)):
        predicted[:, : samples - lag] += by_lag[:, lag:, lag]
    return predicted
