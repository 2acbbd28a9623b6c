"""Recordings become parts: time, frequency, amplitude, statistics, and nothing that reaches back from val and test."""

from fractions import Fraction

import numpy as np
import pytest

from nfa.errors import Refusal
from nfa.registry.families.eeg.layout import SPLITS
from nfa.registry.families.eeg.preparation.filters import resample
from tests.support.prepared_recordings import prepared_in_memory


def recording(seconds=40.0, eeg_rate=256, envelope_rate=128, channels=3, seed=0):
    """Smooth noise with an offset in each channel."""
    random = np.random.default_rng(seed)

    def walk(rate, width):
        steps = random.standard_normal((round(seconds * rate), width))
        return np.apply_along_axis(lambda x: np.convolve(x, np.ones(9) / 9, "same"), 0, steps)

    return walk(eeg_rate, channels) + 100 * np.arange(channels), walk(envelope_rate, 1)[:, 0] + 0.3


def prepared(eeg, envelope, eeg_rate=256, envelope_rate=128, **more):
    return prepared_in_memory(eeg, envelope, eeg_rate=eeg_rate, envelope_rate=envelope_rate, **more)


def middle(array, rate=64):
    """Without the second at each end."""
    return array[rate:-rate]


@pytest.mark.parametrize(
    "rates", [(256, 128), (1024, 64), (8192, 48000), (500, 64), (100, 50), (64, 64), (333.25, 99.5)]
)
def test_parts_have_the_shares_and_one_length_in_both_signals(rates):
    parts = prepared(*recording(40, *map(round, rates)), *map(round, rates))
    assert list(parts) == list(SPLITS)
    lengths = {split: len(eeg) for split, (eeg, _) in parts.items()}
    assert sum(lengths.values()) == 40 * 64
    assert abs(lengths["train"] - 0.8 * 40 * 64) <= 64
    assert abs(lengths["val"] - 0.1 * 40 * 64) <= 64
    for eeg, envelope in parts.values():
        assert eeg.dtype == envelope.dtype == np.float32
        assert (eeg.shape[1], envelope.shape) == (3, (len(eeg), 1))


def test_fractional_rate_is_kept():
    rate, seconds = 333.25, 40
    t = np.arange(round(seconds * rate)) / rate
    parts = prepared(np.sin(2 * np.pi * 3 * t)[:, None], np.sin(2 * np.pi * 3 * t), rate, rate)
    joined = np.concatenate([parts[split][1] for split in SPLITS])[:, 0]
    expected = np.sin(2 * np.pi * 3 * np.arange(len(joined)) / 64) * np.sqrt(2)
    train = len(parts["train"][0])
    np.testing.assert_allclose(joined[64 : train - 64], expected[64 : train - 64], atol=0.01)
    assert np.corrcoef(joined[train:], expected[train:])[0, 1] > 0.995


@pytest.mark.parametrize("rate", [1024, 250, 500, 128, 64, 50])
@pytest.mark.parametrize("frequency", [0.5, 4.0, 12.0])
def test_sinusoid_keeps_frequency_phase_and_amplitude(rate, frequency):
    t, new = np.arange(20 * rate) / rate, np.arange(20 * 64) / 64
    wave = np.stack([np.sin(2 * np.pi * frequency * t), 7 * np.cos(2 * np.pi * frequency * t) + 1000], axis=1)
    found = resample(wave, Fraction(rate, 64), len(new))
    expected = [np.sin(2 * np.pi * frequency * new), 7 * np.cos(2 * np.pi * frequency * new) + 1000]
    np.testing.assert_allclose(middle(found[:, 0]), middle(expected[0]), atol=0.005)
    np.testing.assert_allclose(middle(found[:, 1]), middle(expected[1]), atol=0.035)


def test_what_the_new_rate_cannot_hold_does_not_come_back_as_something_else():
    t = np.arange(20 * 1024) / 1024
    found = resample(np.sin(2 * np.pi * 60 * t)[:, None], Fraction(16), 20 * 64)
    assert np.abs(middle(found)).max() < 0.005


@pytest.mark.parametrize("rate", [1024, 250, 50])
def test_offset_and_drift_stay_what_they_are_to_the_ends(rate):
    t = np.arange(10 * rate) / rate
    found = resample(np.stack([np.full_like(t, 1e4), 1e4 + 30 * t], axis=1), Fraction(rate, 64), 640)
    np.testing.assert_allclose(found[:-2, 0], 1e4, rtol=1e-12)
    np.testing.assert_allclose(found[:-2, 1], 1e4 + 30 * np.arange(638) / 64, rtol=1e-12)


def test_train_part_has_mean_0_and_deviation_1_and_the_others_its_shift_and_scale():
    eeg, envelope = recording()
    parts = prepared(eeg, envelope)
    for array in parts["train"]:
        np.testing.assert_allclose(array.mean(axis=0, dtype=np.float64), 0, atol=1e-6)
        np.testing.assert_allclose(array.std(axis=0, dtype=np.float64), 1, atol=1e-6)
    scaled = prepared(eeg * np.array([1e-6, 5, 1e4]) - 3, envelope * 0.01 + 1)
    for split in SPLITS:
        for one, other in zip(parts[split], scaled[split], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_prepared_again_nothing_changes():
    parts = prepared(*recording())
    joined = [np.concatenate([parts[split][signal] for split in SPLITS]) for signal in (0, 1)]
    again = prepared(*joined, 64, 64)
    for split in SPLITS:
        for one, other in zip(parts[split], again[split], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("filters", [{}, {"highpass": 0.5}, {"highpass": 0.5, "lowpass": 20.0}])
@pytest.mark.parametrize("from_second", [32, 36])
def test_nothing_after_a_part_changes_it(filters, from_second):
    """Not even its first sample, and however large: bitwise."""
    eeg, envelope = recording()
    before = prepared(eeg, envelope, **filters)
    eeg[from_second * 256 :] += 1e6 * np.random.default_rng(1).standard_normal(eeg[from_second * 256 :].shape)
    envelope[from_second * 128 :] *= -50
    after = prepared(eeg, envelope, **filters)
    untouched = {32: ["train"], 36: ["train", "val"]}[from_second]
    for split in SPLITS:
        for one, other in zip(before[split], after[split], strict=True):
            assert (one.tobytes() == other.tobytes()) == (split in untouched)


def test_parts_begin_at_the_same_moment_in_both_signals():
    """The envelope is the EEG at another rate, so they agree inside every part."""
    t, u = np.arange(40 * 500) / 500, np.arange(40 * 128) / 128
    parts = prepared(*(np.sin(2 * np.pi * 2.3 * x) + np.sin(2 * np.pi * 5.1 * x) for x in (t[:, None], u)), 500, 128)
    for eeg, envelope in parts.values():
        np.testing.assert_allclose(middle(eeg), middle(envelope), atol=0.01)


def test_filters_take_away_what_they_should_and_leave_the_envelope():
    t = np.arange(60 * 256) / 256
    slow, kept, fast = (np.sin(2 * np.pi * f * t) for f in (0.1, 5.0, 25.0))
    eeg = (slow + kept + fast)[:, None]
    plain = prepared(eeg, slow + fast, 256, 256)["train"]
    found = prepared(eeg, slow + fast, 256, 256, highpass=1.0, lowpass=12.0)["train"]
    expected = np.sqrt(2) * np.sin(2 * np.pi * 5 * np.arange(len(found[0])) / 64)
    np.testing.assert_allclose(middle(found[0][:, 0], 256), middle(expected, 256), atol=0.02)
    np.testing.assert_array_equal(found[1], plain[1])


@pytest.mark.parametrize("filters", [{"highpass": 0.5}, {"lowpass": 20.0}])
def test_filter_leaves_what_it_passes(filters):
    t = np.arange(60 * 256) / 256
    wave = np.sin(2 * np.pi * 5 * t)
    eeg = prepared(wave[:, None] + 1000, wave, 256, 256, **filters)["train"][0]
    plain = prepared(wave[:, None], wave, 256, 256)["train"][0]
    np.testing.assert_allclose(middle(eeg, 256), middle(plain, 256), atol=0.005)


@pytest.mark.parametrize(("longer", "shorter"), [(40.4, 40.0), (40.0, 39.6)])
def test_longer_signal_is_cut_to_the_shorter(longer, shorter):
    eeg, envelope = recording(longer)
    parts = prepared(eeg, envelope[: round(shorter * 128)])
    assert sum(len(pair[0]) for pair in parts.values()) == int(shorter * 64)
    parts = prepared(eeg[: round(shorter * 256)], envelope)
    assert sum(len(pair[1]) for pair in parts.values()) == int(shorter * 64)


def with_value(value, where):
    eeg, envelope = recording()
    eeg[where] = value
    return eeg, envelope


REFUSED = {
    "lengths": (
        lambda: prepared(*recording(40)[:1], recording(41)[1]),
        r"EEG \(10240 samples at 256 Hz = 40.00 s\) with envelope \(5248 samples at 128 Hz = 41.00 s\)",
    ),
    "rates": (lambda: prepared(*recording(), 256, 64), r"5120 samples at 64 Hz = 80.00 s(.|\n)*check eeg_rate"),
    "too short": (lambda: prepared(*recording(9)), r"EEG \(9.00 s, of it 0.91 s for val\)"),
    "shares": (lambda: prepared(*recording(), train_share=0.8, val_share=0.199), r"0.05 s for test"),
    "nan": (lambda: prepared(*with_value(np.nan, (9300, 1))), r"EEG \(nan at sample 9300 of channel 1\)"),
    "inf": (lambda: prepared(*with_value(np.inf, (10, 2))), r"EEG \(inf at sample 10 of channel 2\)"),
    "flat": (lambda: prepared(*with_value(4.5, np.s_[:8192, 1])), r"constant over the train part: channel 1\)"),
    "flat, filtered": (lambda: prepared(*with_value(4.5, np.s_[:, 1]), highpass=0.5), r"constant .*: channel 1\)"),
    "two envelopes": (
        lambda: prepared(recording()[0], recording(channels=2)[0][:5120, :2]),
        r"envelope \(float64, shape \[5120, 2\]\)\n  allowed: real numbers \[T\] or \[T, 1\]",
    ),
    "envelope in a cube": (lambda: prepared(recording()[0], np.ones((5120, 1, 1))), r"shape \[5120, 1, 1\]\)"),
    "one channel without its axis": (lambda: prepared(recording()[0][:, 0], recording()[1]), r"EEG \(.*\[10240\]\)"),
    "EEG of several trials": (lambda: prepared(np.ones((10240, 3, 2)), recording()[1]), r"EEG \(.*\[10240, 3, 2\]\)"),
    "complex EEG": (lambda: prepared(recording()[0] + 1j, recording()[1]), r"EEG \(complex128, shape"),
    "nothing": (lambda: prepared(np.ones((0, 3)), np.ones(0)), r"EEG \(float64, shape \[0, 3\]\)"),
    "silence": (lambda: prepared(recording()[0], np.zeros(5120)), r"envelope \(constant"),
    "lowpass": (lambda: prepared(*recording(), lowpass=128), r"lowpass=128 for EEG at 256 Hz\n  allowed: .* 128 Hz"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_recording_that_cannot_be_prepared_is_refused(case):
    act, message = REFUSED[case]
    with pytest.raises(Refusal, match=message):
        act()


def test_channel_that_is_flat_only_after_the_train_part_is_none_of_its_business():
    parts = prepared(*with_value(4.5, np.s_[8192:, 1]))
    assert np.isfinite(parts["test"][0]).all()
