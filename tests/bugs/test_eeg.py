"""Faults of programs that decode EEG, and tests that fail with them."""

import math

import numpy as np
import pytest
import torch

from nfa.errors import Refusal
from nfa.maths.pearson import pearson
from nfa.parallel import World
from nfa.registry.cli import parse
from nfa.registry.families.eeg import data
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.eeg.figures.decoding import decoding
from nfa.registry.families.eeg.scores import Scores
from nfa.registry.families.eeg.training import DecoderTraining
from nfa.registry.families.eeg.workload import EEGDecoder
from nfa.registry.training.shared_batch import SharedBatchNorm
from tests.support.eeg_trainings import TINY, recordings, tiny_decoder
from tests.support.prepared_recordings import normalised, save, small, write
from tests.support.stores import Finished

# A script computed the normalised recordings and saved the raw ones; training then saw raw amplitudes.


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


# Every text but the empty one was true, so `--use_gated_residual False` ablated nothing.

SWITCHES = ("use_residual", "use_gated_residual", "use_mlp_head", "use_se", "use_subjects", "use_positions", "use_llrd")


@pytest.mark.parametrize("text", ["false", "False", "FALSE"])
@pytest.mark.parametrize("name", SWITCHES)
def test_false_is_false_and_true_is_true(name, text):
    above = ["--use_residual", "true"] if name == "use_gated_residual" else []
    off, on = (parse(TrainEEGConfig, ["--preset", "custom", *above, f"--{name}", word]) for word in (text, "True"))
    assert getattr(off.resolved(), name) is False
    assert getattr(on.resolved(), name) is True


def test_the_network_has_no_gate_when_that_is_typed():
    typed = ["--preset", "custom", "--use_residual", "true", "--use_gated_residual", "False"]
    config = parse(TrainEEGConfig, typed)
    model = tiny_decoder(**{name: getattr(config, name) for name in ("preset", "use_residual", "use_gated_residual")})
    assert model.model().gate is None
    assert tiny_decoder(**{**TINY, "preset": "full"}).model().gate is not None


@pytest.mark.parametrize("text", ["yes", "no", "0", "1", "", "Flase"])
def test_no_other_word_is_taken_for_either(text):
    with pytest.raises(Refusal, match="allowed: true, false"):
        parse(TrainEEGConfig, ["--use_llrd", text])


# `assert -1 < r < 1` ended the evaluation of a constant or a perfect window.


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


# The test set was evaluated in training, BatchNorm had statistics of a part, parameters stood unused.


def test_the_test_set_has_one_result_that_of_the_chosen_weights(decoded: Finished) -> None:
    best = int(decoded.store.tags(decoded.run_id)["nfa.best_epoch"])
    rows = [(key, step) for key, step, _ in decoded.store.metrics(decoded.run_id) if key.startswith("test/")]
    assert len(rows) == len(set(rows)) == 6
    assert {step for _, step in rows} == {best}


def test_training_and_its_evaluations_read_no_window_of_the_test_set(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = tiny_decoder(epochs=2, eval_every=1)
    read, given = [], EEGDecoder.batches

    def batches(own: EEGDecoder, split: str, **options: object) -> object:
        read.append(split)
        for batch in given(own, split, **options):
            assert {part.split for part in own.data.part_of(batch.ids)} == {split}
            yield batch

    monkeypatch.setattr(EEGDecoder, "batches", batches)
    monkeypatch.setattr("nfa.registry.families.eeg.training.read", lambda _: workload.data)
    DecoderTraining().assist(workload.config, (workload.example_ids, None), World())
    assert set(read) == {"train", "val"}


def test_no_batch_norm_is_one_that_processes_do_not_share() -> None:
    norms = [
        part for part in tiny_decoder().model().modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)
    ]
    assert norms
    assert all(type(norm) is SharedBatchNorm for norm in norms)


def test_without_subjects_no_parameter_is_unused() -> None:
    workload = tiny_decoder(use_subjects=False)
    model, batch = workload.model(), next(workload.batches("train", batch_size=4))
    workload.losses(workload.outputs(model, batch), batch).mean().backward()
    assert all(weight.grad is not None for weight in model.parameters())


# A plotting script added constants to the results of ablations.


def test_the_figure_shows_the_values_that_it_is_given():
    series = {
        "train/loss": {0: 2.0, 2: 1.5},
        "val/loss": {0: 2.1, 2: 1.7},
        "val/pearson": {0: -0.05, 2: 0.2},
        "val/baseline_pearson": {2: 0.125},
    }
    pairs = {"a": (0.1, 0.05), "b": (0.3, 0.15)}
    losses, correlation, of_recordings = decoding(series, pairs, best=2).axes
    drawn = [sorted(line.get_ydata().tolist(), reverse=True) for line in losses.lines]
    assert sorted(drawn) == [[2.0, 1.5], [2.1, 1.7]]
    model, baseline, chosen = correlation.lines
    assert (list(model.get_xdata()), list(model.get_ydata())) == ([0, 2], [-0.05, 0.2])
    assert set(baseline.get_ydata()) == {0.125}
    assert set(chosen.get_xdata()) == {2}
    shown = of_recordings.lines[-1]
    assert list(zip(shown.get_xdata(), shown.get_ydata(), strict=True)) == [
        pytest.approx(pair) for pair in pairs.values()
    ]
