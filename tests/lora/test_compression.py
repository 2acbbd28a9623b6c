"""LoRA factors of an update, and what is said of them, against dense float64 SVDs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa import reference
from nfa.maths.low_rank import FactorPair
from nfa.registry.families.language.teacher.compression import ENERGY_RANKS, compress


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def falling(o: int, i: int, decay: float = 0.1, seed: int = 0) -> torch.Tensor:
    u, v = (torch.linalg.qr(draw(side, min(o, i), seed=seed + side)).Q for side in (o, i))
    return (u * torch.exp(-decay * torch.arange(min(o, i)))) @ v.T


@given(st.integers(3, 40), st.integers(3, 40), st.integers(1, 3), st.integers(0, 9), st.booleans())
@settings(max_examples=30)
def test_everything_equals_the_reference(o, i, rank, seed, factored):
    b, a = draw(o, 6, seed=seed), draw(6, i, seed=seed + 1)
    W = b @ a
    found = compress(FactorPair(b, a) if factored else W, rank, alpha=2.0)
    u, s, vh = reference.truncated_svd(W, rank)
    product = 2.0 / rank * found.factors.b.double() @ found.factors.a.double()
    torch.testing.assert_close(product, (u * s) @ vh, atol=1e-5 * float(s[0]), rtol=0)
    assert found.shape == (o, i)
    assert found.norm == pytest.approx(float(W.norm()), rel=1e-9)
    assert found.energy_ratio == pytest.approx(reference.energy_ratio(W, rank), rel=1e-6)
    assert found.relative_error == pytest.approx(reference.truncation_error(W, (u * s) @ vh), rel=1e-4, abs=1e-6)
    squares = reference.truncated_svd(W, min(o, i))[1].square()
    assert found.stable_rank == pytest.approx(float(squares.sum() / squares[0]), rel=1e-6)
    assert found.rank == min(6, o, i)
    assert set(found.energies) == {r for r in ENERGY_RANKS if r <= min(o, i)}
    for r, energy in found.energies.items():
        assert energy == pytest.approx(reference.energy_ratio(W, r), rel=1e-6)


def test_a_dense_update_with_a_flat_tail_is_met_by_random_directions():
    W = falling(160, 150, 0.02).float()
    found = compress(W, 16, alpha=16.0)
    assert found.energy_ratio == pytest.approx(reference.energy_ratio(W, 16), rel=2e-3)
    assert found.relative_error == pytest.approx((1 - found.energy_ratio) ** 0.5, rel=1e-4)
    _, s, _ = reference.truncated_svd(W, 16)
    assert found.spectrum[:16] == pytest.approx(s.tolist(), rel=0.01)
    assert len(found.spectrum) == 32


def test_factors_and_their_dense_product_have_the_same_factors_up_to_signs():
    b, a = draw(50, 5), draw(5, 40, seed=1)
    from_factors, from_product = (compress(update, 4, 8.0) for update in (FactorPair(b, a), b @ a))
    products = [found.factors.b @ found.factors.a for found in (from_factors, from_product)]
    torch.testing.assert_close(*products, atol=1e-4, rtol=0)
    assert from_factors.flops < from_product.flops


def test_a_zero_update_has_zero_factors_and_nothing_else():
    for update in (FactorPair(torch.zeros(9, 3), draw(3, 8).float()), torch.zeros(9, 8)):
        found = compress(update, 2, 2.0)
        assert (found.energy_ratio, found.relative_error, found.stable_rank, found.energies) == (None, None, None, {})
        assert (found.rank, found.norm) == (0, 0.0)
        assert not found.factors.b.any()
        assert not found.factors.a.any()
        assert (found.factors.b.shape, found.factors.a.shape) == ((9, 2), (2, 8))


def test_the_update_is_not_changed():
    W = falling(90, 80).float()
    before = W.clone()
    compress(W, 4, 4.0)
    assert torch.equal(W, before)
