"""r: closed forms, whatever the offset and scale, and NaN for what is constant."""

import numpy as np
import pytest
import torch

from nfa.maths.pearson import pearson

T = torch.arange(640, dtype=torch.float64)
SIGNAL = torch.sin(T / 7) + 0.3 * torch.cos(T / 3)
OTHER = torch.sin(T / 7 + 0.5) - 0.1 * torch.cos(T / 11)


def r(a, b):
    return float(pearson(a[None], b[None])[0])


def test_it_is_the_value_of_numpy_for_every_row():
    random = np.random.default_rng(0)
    a = random.standard_normal((50, 640))
    b = 0.4 * a + random.standard_normal((50, 640))
    expected = [np.corrcoef(*pair)[0, 1] for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(pearson(torch.tensor(a), torch.tensor(b)), expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 3e-7, -2.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, -5.0])
def test_linear_relation_is_plus_or_minus_one_and_never_beyond(scale, offset):
    value = r(SIGNAL, scale * SIGNAL + offset)
    assert abs(value) <= 1
    assert value == pytest.approx(np.sign(scale), abs=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_squares_beyond_numbers_do_no_harm(scale):
    assert r(scale * SIGNAL, OTHER / scale) == pytest.approx(r(SIGNAL, OTHER), rel=1e-12)


@pytest.mark.parametrize("offset", [1e3, -1e6, 1e9])
def test_huge_offset_costs_no_more_than_the_rounding_of_the_signal(offset):
    assert r(SIGNAL + offset, OTHER) == pytest.approx(r(SIGNAL, OTHER), abs=abs(offset) * 1e-15)


def test_float32_is_summed_in_float64():
    signal, other = SIGNAL.float() + 1000, OTHER.float()
    assert r(signal, other) == r(signal.double(), other.double())


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9, 1e-300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_signal_has_none_whatever_its_size(value, dtype):
    constant = torch.full((640,), value, dtype=dtype)
    assert np.isnan(r(constant, OTHER))
    assert np.isnan(r(OTHER, constant))
    assert np.isnan(r(constant, constant))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [1e-20, 1.0, 1e9])
def test_constant_up_to_rounding_is_constant_and_a_small_signal_is_not(dtype, value):
    eps = torch.finfo(dtype).eps
    jitter = torch.where(T % 3 == 0, 1 + eps, 1 - eps) * value
    assert np.isnan(r(jitter.to(dtype), OTHER))
    assert r((value * (1 + 1000 * eps * SIGNAL)).to(dtype), SIGNAL) > 0.99


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_value_that_is_not_finite_has_none_and_spoils_no_other_row(bad):
    spoiled = SIGNAL.clone()
    spoiled[3] = bad
    values = pearson(torch.stack([SIGNAL, spoiled]), torch.stack([SIGNAL, SIGNAL]))
    assert values[0] == pytest.approx(1, abs=1e-12)
    assert values[1].isnan()


def test_one_sample_has_none_and_no_rows_have_no_values():
    assert pearson(torch.ones(2, 1), torch.ones(2, 1)).isnan().all()
    assert pearson(torch.ones(0, 640), torch.ones(0, 640)).shape == (0,)
