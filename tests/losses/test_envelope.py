"""The loss of a decoded envelope: NumPy's correlation, each window by itself, and finite where a signal is constant."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nfa.maths.pearson import pearson
from nfa.registry.families.eeg.losses import correlation, loss_terms


def signals(n: int, length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    f, y = torch.randn(2, n, length, 1, generator=random, dtype=torch.float64)
    return 3 * f + 2, y + 0.5 * f - 1


@given(st.integers(1, 5), st.integers(2, 50), st.integers(0, 99))
def test_both_terms_are_those_of_numpy(n, length, seed):
    f, y = signals(n, length, seed)
    error, apart = loss_terms(f, y)
    for row in range(n):
        one, other = f[row, :, 0].numpy(), y[row, :, 0].numpy()
        assert float(error[row]) == pytest.approx(np.mean((one - other) ** 2), rel=1e-12)
        assert float(apart[row]) == pytest.approx((1 - np.corrcoef(one, other)[0, 1]) ** 2, rel=1e-7, abs=1e-12)


def test_r_of_the_loss_is_the_reported_one_where_that_is_defined():
    f, y = signals(6, 128)
    torch.testing.assert_close(correlation(f[..., 0], y[..., 0]), pearson(f[..., 0], y[..., 0]), rtol=1e-12, atol=1e-12)


def test_a_perfect_window_has_no_loss_and_an_opposite_one_four():
    _, y = signals(1, 64)
    error, apart = loss_terms(y, y)
    assert (float(error), float(apart)) == (0, pytest.approx(0, abs=1e-20))
    assert float(loss_terms(-y, y)[1]) == pytest.approx(4)
    assert float(loss_terms(5 * y + 3, y)[1]) == pytest.approx(0, abs=1e-20)


def test_a_window_s_terms_and_gradients_do_not_depend_on_the_others():
    f, y = signals(4, 32)
    f.requires_grad_()
    together = [torch.autograd.grad(term.sum(), f)[0] for term in loss_terms(f, y)]
    for row in range(4):
        alone = f[row : row + 1].detach().requires_grad_()
        for whole, term, values in zip(together, loss_terms(alone, y[row : row + 1]), loss_terms(f, y), strict=True):
            assert torch.equal(term, values[row : row + 1])
            assert torch.equal(torch.autograd.grad(term.sum(), alone, retain_graph=True)[0], whole[row : row + 1])


def test_gradients_are_those_of_differences():
    f, y = signals(2, 5)
    assert torch.autograd.gradcheck(lambda f: loss_terms(f, y), f.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1e4])
@pytest.mark.parametrize("constant", ["output", "target", "both"])
def test_a_constant_signal_has_a_finite_loss_and_gradient(constant, level, dtype):
    f, y = (each.to(dtype) for each in signals(2, 50))
    f = torch.full_like(f, level) if constant != "target" else f
    y = torch.full_like(y, level) if constant != "output" else y
    f.requires_grad_()
    for term in loss_terms(f, y):
        assert term.isfinite().all()
        (gradient,) = torch.autograd.grad(term.sum(), f, retain_graph=True)
        assert gradient.isfinite().all()
    if level in (0.0, 1.0):  # of no rounding in the mean
        assert loss_terms(f, y)[1].tolist() == [1, 1]


def test_a_window_of_a_single_sample_has_one_too():
    f = torch.tensor([[[3.0]]], requires_grad=True)
    error, apart = loss_terms(f, torch.tensor([[[1.0]]]))
    assert [error.tolist(), apart.tolist()] == [[4], [1]]
    (error + apart).sum().backward()
    assert f.grad.tolist() == [[[4.0]]]
