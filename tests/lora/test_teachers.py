"""A module's synthesised update: the adapter's triplets, a tail, noise that is drawn anew."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa import reference
from nfa.maths.low_rank import FactorPair, LowRank
from nfa.registry.families.language.teacher.synthesis import Synthesized, synthesize, teacher_update

OPTIONS = {"rank": 4, "target_rank": 12, "decay": 0.04, "noise_scale": 0.1, "seed": 3}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def adapter(o: int = 40, i: int = 60, k: int = 4, seed: int = 0) -> FactorPair:
    return FactorPair(draw(o, k, seed=seed), draw(k, i, seed=seed + 1))


def made(update: FactorPair, name: str = "layer", **changed: float) -> Synthesized:
    return synthesize(update, name, **{**OPTIONS, **changed})  # type: ignore[arg-type]


def dense(matrix: LowRank) -> torch.Tensor:
    return (matrix.u.double() * matrix.s.double()) @ matrix.vh.double()


@given(st.integers(4, 30), st.integers(4, 30), st.integers(1, 6), st.integers(0, 9))
@settings(max_examples=25)
def test_kept_triplets_are_those_of_the_dense_adapter(o, i, k, seed):
    update = adapter(o, i, k, seed)
    found = made(update, rank=k, target_rank=o)
    W = reference.lora_update(update.b, update.a, 1, 1)
    u, s, vh = reference.truncated_svd(W, min(k, o, i))
    kept = found.matrix.truncated(found.kept)
    assert found.kept == len(s)
    torch.testing.assert_close(dense(kept), (u * s) @ vh, atol=1e-5 * float(s[0]), rtol=0)
    assert found.added == min(o, i) - found.kept
    assert found.clamped == (min(o, i) < o)
    assert found.left_out == pytest.approx(0, abs=1e-12)


def test_tail_falls_from_the_last_kept_value_and_stays_above_the_noise():
    found = made(adapter(100, 120), target_rank=64)
    s = found.matrix.s
    assert float(s[4] / s[3]) == pytest.approx(math.exp(-0.04), rel=1e-6)
    assert float(s[-1] / s[3]) == pytest.approx(math.exp(-0.04 * 60), rel=1e-5)
    noise = teacher_update(found.matrix, found.sigma, 3, "layer") - dense(found.matrix).float()
    measured = float(torch.linalg.matrix_norm(noise, 2))
    assert measured == pytest.approx(0.1 * float(s[3]), rel=0.1)


def test_energies_are_shares_of_the_measured_teacher():
    found = made(adapter(100, 120), noise_scale=2.0)
    W = teacher_update(found.matrix, found.sigma, 3, "layer").double()
    assert found.energies is not None
    assert sum(found.energies) == pytest.approx(1)
    kept, added, noise = found.energies
    size = float(W.square().sum())
    s = found.matrix.s.double().square()
    assert kept == pytest.approx(float(s[:4].sum()) / size, rel=0.05)
    assert added == pytest.approx(float(s[4:].sum()) / size, rel=0.05)
    assert noise == pytest.approx(float((W - dense(found.matrix)).square().sum()) / size, rel=0.05)


def test_a_smaller_rank_tells_what_it_leaves_out():
    update = adapter()
    found = made(update, rank=2)
    left = 1 - reference.energy_ratio(reference.lora_update(update.b, update.a, 1, 1), 2)
    assert (found.kept, found.left_out) == (2, pytest.approx(left, rel=1e-9))


def test_directions_that_are_rounding_are_not_kept():
    update = adapter(k=4)
    found = made(FactorPair(update.b[:, [0, 1, 1, 1]], update.a))
    assert found.kept == 2
    assert float(found.matrix.s[-1]) > 0.1 * float(found.matrix.s[1])


def test_a_zero_adapter_has_a_zero_teacher():
    found = made(FactorPair(torch.zeros(8, 2, dtype=torch.float64), draw(2, 9)))
    assert (found.sigma, found.energies, found.left_out) == (0.0, None, None)
    update = teacher_update(found.matrix, found.sigma, 3, "layer")
    assert isinstance(update, FactorPair)
    assert not (update.b @ update.a).any()


def test_the_same_seed_and_name_give_the_same_teacher_whatever_else_was_made_before():
    one = made(adapter())
    made(adapter(seed=9), "another")
    torch.manual_seed(8)
    same = made(adapter())
    assert all(torch.equal(a, b) for a, b in zip(one.matrix, same.matrix, strict=True))
    W, again, other = (teacher_update(one.matrix, one.sigma, 3, name) for name in ("layer", "layer", "another"))
    assert torch.equal(W, again)
    assert not torch.equal(W, other)
    for changed in (made(adapter(), "another"), made(adapter(), seed=4)):
        assert torch.equal(changed.matrix.u[:, :4], one.matrix.u[:, :4])
        assert not torch.equal(changed.matrix.u, one.matrix.u)
