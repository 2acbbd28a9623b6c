"""Block autocovariances give what the matrix of lagged signals gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfa import reference
from nfa.registry.families.eeg.lagged_ridge import LaggedRidge, predict

PENALTIES = (1e-3, 0.1, 10.0)


def recordings(seed, channels, lengths):
    random = np.random.default_rng(seed)
    return [(random.standard_normal((T, channels)), random.standard_normal(T)) for T in lengths]


def fitted(data, channels, lags):
    ridge = LaggedRidge(channels, lags)
    for eeg, envelope in data:
        ridge.add(eeg, envelope)
    return ridge


def far(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@given(
    seed=st.integers(0, 10**6),
    channels=st.integers(1, 5),
    lags=st.integers(1, 9),
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=3),
)
def test_weights_and_predictions_are_those_of_least_squares(seed, channels, lags, lengths):
    data = recordings(seed, channels, lengths)
    weights = fitted(data, channels, lags).weights(PENALTIES)
    assert weights.shape == (len(PENALTIES), channels, lags)
    for penalty, found in zip(PENALTIES, weights, strict=True):
        expected = reference.lagged_ridge(data, lags, penalty)
        assert far(found, expected) < 1e-8
        for eeg, _ in data:
            assert far(predict(found, eeg[None])[0], reference.lagged_prediction(found, eeg)) < 1e-12


def test_correlated_channels_of_different_size_agree_too():
    random = np.random.default_rng(1)
    mixing = random.standard_normal((3, 6)) * np.array([1, 10, 0.1, 1, 1, 5])
    data = [(random.standard_normal((200, 3)).cumsum(axis=0) @ mixing, random.standard_normal(200)) for _ in range(2)]
    weights = fitted(data, 6, 8).weights(PENALTIES)
    for penalty, found in zip(PENALTIES, weights, strict=True):
        assert far(found, reference.lagged_ridge(data, 8, penalty)) < 1e-8


def test_decoder_that_made_the_envelope_is_found():
    random = np.random.default_rng(2)
    true = random.standard_normal((4, 6))
    eeg = random.standard_normal((5000, 4))
    eeg[-5:] = eeg[:5] = 0  # then nothing of the decoder reaches outside the recording
    envelope = predict(true, eeg[None])[0]
    assert far(fitted([(eeg, envelope)], 4, 6).weights([1e-12])[0], true) < 1e-9


def test_envelope_is_decoded_from_eeg_that_follows_it():
    """An echo three samples later, and nothing before."""
    envelope = np.random.default_rng(3).standard_normal(1000)
    eeg = np.concatenate([np.zeros(3), envelope[:-3]])[:, None]
    weights = fitted([(eeg, envelope)], 1, 6).weights([1e-9])[0, 0]
    np.testing.assert_allclose(weights, [0, 0, 0, 1, 0, 0], atol=0.01)


def test_scale_of_the_eeg_does_not_change_what_a_penalty_does():
    ((eeg, envelope),) = recordings(4, 3, [100])
    one, other = (fitted([(scale * eeg, envelope)], 3, 4).weights(PENALTIES) * scale for scale in (1.0, 1e-6))
    assert far(one, other) < 1e-10


def test_windows_know_nothing_of_each_other():
    ((eeg, _),) = recordings(5, 3, [40])
    weights = np.random.default_rng(6).standard_normal((3, 5))
    windows = predict(weights, eeg.reshape(4, 10, 3))
    for window, found in zip(eeg.reshape(4, 10, 3), windows, strict=True):
        np.testing.assert_allclose(found, predict(weights, window[None])[0], rtol=1e-12)
    assert predict(weights, eeg[:0].reshape(0, 10, 3)).shape == (0, 10)
    assert predict(weights, eeg[None, :2]).shape == (1, 2)


def test_joined_sums_are_those_of_all_recordings():
    data = recordings(3, 2, (50, 40, 30))
    joined = fitted(data[:1], 2, 4)
    joined.join(fitted(data[1:], 2, 4))
    assert far(joined.weights(PENALTIES), fitted(data, 2, 4).weights(PENALTIES)) < 1e-12
    with pytest.raises(ValueError, match="not"):
        joined.join(fitted(data, 2, 5))


def test_silence_decodes_to_silence():
    ridge = LaggedRidge(2, 3)
    assert not ridge.weights([1.0]).any()
    ridge.add(np.zeros((10, 2)), np.ones(10))
    assert not ridge.weights([1.0]).any()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: LaggedRidge(0, 3), "0 channels and 3 lags"),
        (lambda: LaggedRidge(2, 0), "2 channels and 0 lags"),
        (lambda: LaggedRidge(2, 3).add(np.ones((9, 3)), np.ones(9)), "not T × 2"),
        (lambda: LaggedRidge(2, 3).weights([1.0, 0.0]), "penalties"),
        (lambda: LaggedRidge(2, 3).weights([np.nan]), "penalties"),
    ],
)
def test_what_makes_no_sense_is_an_error(act, message):
    with pytest.raises(ValueError, match=message):
        act()
