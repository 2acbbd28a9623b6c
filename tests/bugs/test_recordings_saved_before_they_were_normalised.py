"""Fault: a script computed the normalised recordings and saved the raw ones; training then saw raw amplitudes."""

import numpy as np
import pytest
import torch

from nfa.registry.families.eeg import data
from tests.support.prepared_recordings import normalised, save, small, write


@pytest.mark.parametrize("gain", [1.0, 1e-6, 1e6], ids=["as recorded", "volts", "microvolts"])
def test_raw_and_normalised_files_are_the_same_examples(tmp_path, monkeypatch, gain):
    monkeypatch.setenv("NFA_CACHE", str(tmp_path / "cache"))
    written = write(tmp_path / "raw", small(), dtype="float64")
    for name, (signal, envelope) in written.items():
        save(tmp_path / "raw", name, gain * signal, envelope)
        save(tmp_path / "normalised", name, *normalised(written, name))
    raw, normal = (data.load(tmp_path / place, window=32) for place in ("raw", "normalised"))
    for split in data.SPLITS:
        ids = raw.ids(split, 32)
        assert ids == normal.ids(split, 32)
        for one, other in zip(raw.windows(ids, 32), normal.windows(ids, 32), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    train = np.concatenate([raw.arrays(part)[0] for part in raw.of("train")])
    np.testing.assert_allclose(train.std(axis=0), 1, rtol=1e-9)
