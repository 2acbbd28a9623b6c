"""Time-lagged ridge regression with an explicit matrix of lagged signals."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64


def lagged_matrix(eeg: Float64[np.ndarray, "T C"], lags: int) -> Float64[np.ndarray, "rows CL"]:
    """Return X[t, (c, l)] = x_c(t+l), with x zero outside 0 … T−1, for every t with a nonzero row: −(L−1) … T−1.

    Args:
        eeg: The signals x [T, C].
        lags: The number L of lags.

    Returns:
        X [T + L − 1, C·L].

    Example:
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
    """Solve min_w ‖y − Xw‖² + λ‖w‖² with λ = penalty × ‖X‖_F²/(CL), as least squares of [y; 0] on [X; √λ I].

    X and y stack the recordings; y is zero before its recording, as x is outside it.

    Args:
        recordings: Pairs of EEG [T, C] and envelope [T].
        lags: The number L of lags.
        penalty: The relative penalty.

    Returns:
        The weights w [C, L].
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
    """Return the prediction ŷ = Xw at t = 0 … T−1.

    Args:
        weights: The weights w [C, L].
        eeg: The signals [T, C].

    Returns:
        ŷ [T].
    """
    lags = weights.shape[1]
    return np.asarray((lagged_matrix(eeg, lags) @ weights.reshape(-1))[lags - 1 :], dtype=np.float64)
