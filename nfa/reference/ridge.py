"""Time-lagged ridge regression with the matrix of lagged signals written out."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64


def lagged_matrix(eeg: Float64[np.ndarray, "T C"], lags: int) -> Float64[np.ndarray, "rows CL"]:
    """X[t, (c,l)] = x_c(t+l), x zero outside 0 … T−1, for every t where any of it is not: −(L−1) … T−1.

    >>> lagged_matrix(np.array([[1.0], [2.0]]), 2)
    array([[0., 1.],
           [1., 2.],
           [2., 0.]])
    """
    samples, channels = eeg.shape
    X = np.zeros((samples + lags - 1, channels, lags))
    for row, t in enumerate(range(1 - lags, samples)):
        for lag in range(lags):
            if 0 <= t + lag < samples:
                X[row, :, lag] = eeg[t + lag]
    return X.reshape(len(X), channels * lags)


def lagged_ridge(
    recordings: Sequence[tuple[Float64[np.ndarray, "T C"], Float64[np.ndarray, " T"]]], lags: int, penalty: float
) -> Float64[np.ndarray, "C L"]:
    """min_w ‖y − Xw‖² + λ‖w‖², λ = penalty × ‖X‖_F²/(CL), as least squares of [y; 0] on [X; √λ I].

    X and y hold the recordings one below the other; y is zero before its recording, as x is outside it.
    """
    X = np.concatenate([lagged_matrix(eeg, lags) for eeg, _ in recordings])
    y = np.concatenate([np.concatenate([np.zeros(lags - 1), envelope]) for _, envelope in recordings])
    unknowns = X.shape[1]
    strength = np.sqrt(penalty * np.square(X).sum() / unknowns)
    augmented = np.concatenate([X, strength * np.eye(unknowns)])
    w = np.linalg.lstsq(augmented, np.concatenate([y, np.zeros(unknowns)]), rcond=None)[0]
    return np.asarray(w.reshape(-1, lags), dtype=np.float64)


def lagged_prediction(
    weights: Float64[np.ndarray, "C L"], eeg: Float64[np.ndarray, "T C"]
) -> Float64[np.ndarray, " T"]:
    """ŷ = Xw at t = 0 … T−1."""
    lags = weights.shape[1]
    return np.asarray((lagged_matrix(eeg, lags) @ weights.reshape(-1))[lags - 1 :], dtype=np.float64)
