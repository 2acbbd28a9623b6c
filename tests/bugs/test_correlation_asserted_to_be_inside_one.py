"""EEG fault 8: `assert -1 < r < 1` ended the evaluation of a constant or a perfect window."""

import math

import pytest
import torch

from nfa.maths.pearson import pearson
from nfa.registry.families.eeg.scores import Scores
from tests.support.eeg_trainings import recordings


def test_perfect_windows_have_an_r_of_one_and_constant_ones_none():
    true = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    decoded = torch.stack([true[0], -2 * true[1] + 1, torch.full((50,), 0.3)])
    r = pearson(decoded, true)
    assert r[:2].tolist() == pytest.approx([1, -1], abs=1e-6)
    assert -1 <= float(r.nan_to_num(0).min()) <= float(r.nan_to_num(0).max()) <= 1
    assert r[2].isnan()


def test_a_window_without_r_is_counted_and_left_out_of_every_mean():
    data = recordings()
    ids = data.ids("val", 128)
    assert len(ids) == 16
    r = torch.linspace(-1, 1, 16, dtype=torch.float64)
    r[1] = math.nan  # of the first recording
    r[4:8] = math.nan  # all of the second, the other one of the first subject
    scores = Scores(data, ids, {"loss": torch.zeros(16)}, r)
    first, *others = scores.recordings().values()
    assert scores.undefined == 5
    assert first == pytest.approx(float(r[[0, 2, 3]].mean()))
    assert others == pytest.approx([float(r[8:12].mean()), float(r[12:].mean())])
    assert scores.subjects()["sub-001"] == first
    assert scores.pearson == pytest.approx((first + sum(others)) / 3)
    assert scores.series("val")["val/undefined_windows"] == 5


def test_without_any_r_there_is_no_mean():
    data = recordings()
    ids = data.ids("val", 128)
    scores = Scores(data, ids, {"loss": torch.zeros(16)}, torch.full((16,), math.nan, dtype=torch.float64))
    assert scores.pearson is None
    assert scores.series("val") == {"val/loss": 0.0, "val/undefined_windows": 16.0}
    assert (scores.recordings(), scores.subjects()) == ({}, {})
