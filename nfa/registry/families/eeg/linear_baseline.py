"""The linear baseline: a ridge decoder on the same EEG recordings."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float64

from nfa.content import json_digest
from nfa.maths.pearson import pearson
from nfa.registry.families.eeg.data import EEGData, RecordingPart
from nfa.registry.families.eeg.lagged_ridge import LaggedRidge, predict
from nfa.registry.folders import cache_folder
from nfa.registry.remembered import keep, recalled

LAGS = 27  # 0 … round(0.4 s × 64 Hz)
PENALTIES = tuple(10.0**power for power in range(-6, 3))


@dataclass
class Baseline:
    """The penalty chosen for each subject, and the mean r of each recording by split, "val" or "test".

    Undefined values are absent: recordings without any defined r, and all values if no window of val has a defined r.
    `undefined` counts the windows of val and test without an r.
    """

    recordings: dict[str, dict[str, float]] = field(default_factory=lambda: {"val": {}, "test": {}})
    penalties: dict[str, float] = field(default_factory=dict)
    undefined: int = 0

    def pearson_of(self, split: str) -> float | None:
        """Return the mean over the recordings of a split; None if no r is defined."""
        values = self.recordings[split].values()
        return sum(values) / len(values) if values else None

    def series(self) -> dict[str, float]:
        """Return metrics by key: "val/baseline_pearson", "test/baseline_pearson"."""
        found = {f"{split}/baseline_pearson": self.pearson_of(split) for split in self.recordings}
        return {key: value for key, value in found.items() if value is not None}


def linear_baseline(
    data: EEGData, *, window: int, lags: int = LAGS, penalties: Sequence[float] = PENALTIES
) -> Baseline:
    """Fit a time-lagged ridge decoder per subject on train, choose its penalty on val, and score it on test.

    r is computed for each non-overlapping window of `window` samples, decoded from that window alone, as for a model
    that sees no more. The penalty (relative to the mean square of the lagged EEG, see `LaggedRidge.weights`) is the
    first with the largest mean r over the subject's val windows, or over those of all subjects if its own have no r. A
    subject without train parts uses the decoder fitted to all subjects. One part of a recording is in memory at a time.
    Raises `ValueError` for a window below one sample.
    """
    if window < 1:
        raise ValueError(f"a window of {window} samples: at least 1 is needed")
    found, decoders = Baseline(), _decoders(data, lags, penalties)
    val = {subject: _scores(data, "val", subject, weights, window) for subject, weights in decoders.items()}
    shared = _best({name: rows for scores in val.values() for name, rows in scores.items()})
    for subject, weights in decoders.items():
        own = _best(val[subject])
        best = shared if own is None else own
        if best is not None:
            found.penalties[subject] = penalties[best]
        decoder = weights[[best]] if best is not None else np.full_like(weights[:1], math.nan)
        test = _scores(data, "test", subject, decoder, window)
        chosen = {name: rows[best or 0] for name, rows in val[subject].items()}
        found.undefined += _keep(found.recordings["val"], chosen)
        found.undefined += _keep(found.recordings["test"], {name: rows[0] for name, rows in test.items()})
    return found


def _decoders(data: EEGData, lags: int, penalties: Sequence[float]) -> dict[str, Float64[np.ndarray, "p C L"]]:
    """Return weights per penalty by subject, fitted to its own train parts, or to those of all subjects."""
    trained = sorted({part.subject for part in data.of("train")})
    unseen = sorted({part.subject for split in ("val", "test") for part in data.of(split)} - {*trained})
    everyone, found = LaggedRidge(data.channels, lags), {}
    for subject in trained:
        ridge = LaggedRidge(data.channels, lags)
        for part in _parts(data, "train", subject):
            eeg, envelope = data.arrays(part)
            ridge.add(eeg, envelope[:, 0])
        found[subject] = ridge.weights(penalties)
        everyone.join(ridge)
    return found | dict.fromkeys(unseen, everyone.weights(penalties)) if unseen else found


def _parts(data: EEGData, split: str, subject: str) -> Iterable[RecordingPart]:
    return (part for part in data.of(split) if part.subject == subject)


def _scores(
    data: EEGData, split: str, subject: str, weights: Float64[np.ndarray, "p C L"], window: int
) -> dict[str, Float64[np.ndarray, "p n"]]:
    """r by recording, for each of the weights and each whole window; NaN if it is undefined."""
    found: dict[str, list[np.ndarray]] = {}
    for part in _parts(data, split, subject):
        eeg, envelope = (_windows(signal, window) for signal in data.arrays(part))
        rows = np.stack([_r(predict(one, eeg), envelope[:, :, 0]) for one in weights])
        found.setdefault(part.recording, []).append(rows)
    return {name: np.concatenate(pieces, axis=1) for name, pieces in found.items()}


def _windows(signal: Float64[np.ndarray, "T C"], window: int) -> Float64[np.ndarray, "n window C"]:
    whole = len(signal) // window
    return signal[: whole * window].reshape(whole, window, signal.shape[1])


def _r(predicted: Float64[np.ndarray, "n T"], envelope: Float64[np.ndarray, "n T"]) -> Float64[np.ndarray, " n"]:
    return pearson(torch.from_numpy(predicted), torch.tensor(envelope)).numpy()


def _best(scores: Mapping[str, Float64[np.ndarray, "p n"]]) -> int | None:
    """The row with the largest mean over all recordings' windows; None if no window has an r."""
    means = [_mean(np.concatenate(rows)) for rows in zip(*scores.values(), strict=True)]
    defined = [(mean, -row) for row, mean in enumerate(means) if mean is not None]
    return -max(defined)[1] if defined else None


def _keep(means: dict[str, float], scores: Mapping[str, Float64[np.ndarray, " n"]]) -> int:
    """Put the mean of each recording's defined r into `means`; the number of undefined ones."""
    defined = {name: mean for name, r in scores.items() if (mean := _mean(r)) is not None}
    means.update(defined)
    return int(sum(np.isnan(r).sum() for r in scores.values()))


def _mean(values: Iterable[float]) -> float | None:
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else None


def baseline(data: EEGData, window: int) -> Baseline:
    """Return the linear baseline for windows of this length, from the cache if it is known."""
    how = {"split": data.split, "unseen": data.unseen}
    what = {"data": data.digest(), **how, "window": window, "lags": LAGS, "penalties": PENALTIES}
    note = cache_folder("eeg") / f"baseline-{json_digest(what)[:32]}.json"
    found = recalled(note, lambda kept: Baseline(**kept))
    if found is None:
        found = linear_baseline(data, window=window)
        keep(note, dataclasses.asdict(found))
    return found
