"""What the same weights in two matrices explain, against whole random rotations of what stands between them."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from nfa import reference
from nfa.maths.chance import Level
from nfa.maths.haar import DRAWS, haar_rows
from nfa.maths.shared_weights import (
    Powers,
    Spectrum,
    Target,
    by_rotations,
    closed_form,
    inner,
    mean_product,
    outstanding,
)
from tests.support.rotations import (
    assert_mean,
    gaussian,
    of_participation,
    participation,
    positive,
    rotations,
    spiked,
    uniform,
)

CLOSE = 0.01  # of the mean over 2,000 rotations, where the spectrum is flat
ROUGH = 0.02  # elsewhere: 200 rotations have a Monte-Carlo error


def target(C: Tensor, B: Tensor, norm: float) -> Target:
    return Target(float(B.trace()), inner(B, C), inner(B, C @ C), float(B.square().sum()), norm)


def levels(S: Tensor, C: Tensor, B: Tensor | None = None, norm: float | None = None) -> dict[str, Level | None]:
    """The level of AGOP with another matrix, that of NFM unless B and the norm are given, in both ways."""
    B, norm = C @ C if B is None else B, float(C.norm()) if norm is None else norm
    s, c, b = Powers.of([S]), Powers.of([C]), target(C, B, norm)
    values, vectors = torch.linalg.eigh(C)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    spectrum = Spectrum(values, vectors.T @ B @ vectors)
    found = {"closed": closed_form(len(C), s, c, b), "rotated": by_rotations([S], s, c, spectrum, b)}
    return {**found, "best": found["closed" if c.flat else "rotated"]}


def turned(S: Tensor, C: Tensor, draws: int, B: Tensor | None = None, norm: float | None = None) -> Tensor:
    """⟨X, B⟩ / (√tr(XCXC) · norm) for X = QSQᵀ."""
    B, norm = C @ C if B is None else B, float(C.norm()) if norm is None else norm
    values, vectors = torch.linalg.eigh(S)
    kept = values > 1e-10 * values.max()
    half, found = vectors[:, kept] * values[kept].sqrt(), []
    diagonal = int(kept.sum()) < len(S)  # the leading columns of a rotation are all that matters
    for Q in rotations(draws, len(S), columns=int(kept.sum())) if diagonal else rotations(draws, len(S)):
        Y = Q * values[kept].sqrt() if diagonal else Q @ half
        found.append((Y * (B @ Y)).sum(dim=(1, 2)) / (Y.mT @ C @ Y).flatten(1).norm(dim=1) / norm)
    return torch.cat(found)


def weights(count: int, sizes: Sequence[int], widest: int) -> list[Tensor]:
    """W Wᵀ of Gaussian weights with 0 to 10 spikes, and diagonal matrices of every participation ratio."""
    found = []
    for seed in range(count):
        x = uniform(4, seed=seed).tolist()
        size, spikes = sizes[int(x[0] * len(sizes))], int(x[1] * 11)
        if seed % 2:
            ratio = 8 + (min(0.8 * size, 120) - 8) * x[2] if size > 10 else 1 + (size - 1) * x[2]
            found.append(of_participation(size, ratio, min(size, max(1, spikes)), seed=seed).diag())
        else:
            W = spiked(size, max(1, int(size * widest ** x[2])), spikes, seed=seed)
            found.append(W @ W.T)
    return found


def assert_levels(C: Tensor, draws: int) -> None:
    for rank in (1, 10, len(C)) if len(C) < 100 else (1, 10):  # whole rotations of large matrices take minutes
        S = positive(len(C), min(rank, len(C)), seed=rank, decay=rank % 7 / 10)
        values, level = turned(S, C, draws), levels(S, C)["best"]
        assert level is not None
        error = float(values.std()) / draws**0.5
        flat = participation(torch.linalg.eigvalsh(C)) >= 32
        more = 0 if draws >= 2000 else 3 * error
        assert abs(level.mean - float(values.mean())) <= (CLOSE if flat else ROUGH) + more
        assert abs(level.sd - float(values.std())) <= 0.25 * float(values.std()) + 0.003


@pytest.mark.parametrize("C", weights(8, (2, 5, 16, 40), 4), ids=lambda C: f"{len(C)}")
def test_the_level_is_that_of_rotations_of_small_matrices(C):
    assert_levels(C, 400)


BAR = [*weights(50, (2, 3, 4, 6, 8, 12, 16, 24, 32), 8), *weights(100, (48, 64, 96, 256), 8)]


@pytest.mark.slow
@pytest.mark.parametrize("C", BAR, ids=lambda C: f"{len(C)}")
def test_the_level_is_that_of_two_thousand_rotations(C):
    assert_levels(C, 2000)


def test_flat_spectra_are_among_those():
    assert sum(participation(torch.linalg.eigvalsh(C)) >= 32 for C in BAR) >= 20


def test_a_single_spike_spoils_the_closed_form_though_the_participation_ratio_is_high():
    """So that rotations are used there."""
    C = of_participation(200, 34, 1).diag()
    S = positive(200, 1, seed=1)
    found, values = levels(S, C), turned(S, C, 2000)
    assert participation(C.diagonal()) > 32
    assert not Powers.of([C]).flat
    assert abs(found["closed"].mean - float(values.mean())) > CLOSE
    assert abs(found["rotated"].mean - float(values.mean())) < CLOSE
    assert found["best"] == found["rotated"]


def test_where_the_spectrum_is_flat_both_ways_agree():
    C, S = gaussian(48, 300) @ gaussian(48, 300).T, positive(48, 10, seed=1)
    found = levels(S, C)
    assert Powers.of([C]).flat
    assert found["best"] == found["closed"]
    assert found["closed"].mean == pytest.approx(found["rotated"].mean, abs=0.002)
    assert found["closed"].sd == pytest.approx(turned(S, C, 1000).std().item(), rel=0.15)


@pytest.mark.parametrize("spike", [0.5, 1.0, 3.0])
def test_the_spread_counts_the_directions_that_are_not_rotated_one_by_one(spike):
    values, vectors = torch.linalg.eigh(gaussian(70, 300) @ gaussian(70, 300).T)
    values[-1] *= 1 + spike
    C, S = vectors @ values.diag() @ vectors.T, positive(70, 4, seed=1)
    assert levels(S, C)["rotated"].sd == pytest.approx(turned(S, C, 1500).std().item(), rel=0.15)


def test_powers_that_contradict_each_other_give_a_spread_above_zero():
    """As those of estimates from random directions may do."""
    C, S = gaussian(48, 300) @ gaussian(48, 300).T, positive(48, 10, seed=1)
    s, c = Powers.of([S]), Powers.of([C])
    made = target(C, C @ C, float(C.norm()))
    found = closed_form(48, s._replace(three=1.5 * s.three, four=0.5 * s.four), c, made)
    assert found.sd > 0
    assert math.isnan(closed_form(48, s._replace(two=0.9 * s.one**2 / 48), c, made).sd)


def test_a_spike_in_the_weights_raises_the_level():
    flat, S = gaussian(40, 200) @ gaussian(40, 200).T, positive(40, 40, seed=1, decay=1)
    spike = flat + 20 * flat.norm() * torch.outer(*[gaussian(40, seed=7) / 40**0.5] * 2)
    assert levels(S, spike)["best"].mean > levels(S, flat)["best"].mean + 0.1


@pytest.mark.parametrize("size", [5, 48])
def test_what_no_rotation_changes_has_its_own_value_and_no_spread(size):
    """AGOP = 3 NFM."""
    W = gaussian(size, 4 * size)
    level = levels(3 * torch.eye(size, dtype=torch.float64), W @ W.T)["best"]
    assert level == pytest.approx((1, 0), abs=1e-6)


@pytest.mark.parametrize("W", [spiked(6, 9, 2), gaussian(40, 300)], ids=["rotations", "closed form"])
def test_neither_scales_nor_a_rotation_of_what_is_rotated_move_the_level(W):
    S, Q = positive(len(W), 3, seed=1), next(rotations(1, len(W), seed=5))[0]
    expected = levels(S, W @ W.T)["best"]
    assert levels(1e9 * S, 1e-9 * W @ W.T)["best"] == pytest.approx(expected, rel=1e-8)
    turned_first = levels(Q @ S @ Q.T, W @ W.T)["best"]
    assert turned_first.mean == pytest.approx(expected.mean, abs=ROUGH)
    other = levels(positive(len(W), len(W), seed=1), W @ W.T)["best"]
    assert abs(other.mean - expected.mean) > 0.05


def test_a_weight_of_deficient_rank_has_the_level_of_rotations():
    W = gaussian(12, 3) @ gaussian(3, 20, seed=1)
    S, C = positive(12, 5, seed=2), W @ W.T
    values, level = turned(S, C, 2000), levels(S, C)["best"]
    assert level.mean == pytest.approx(float(values.mean()), abs=CLOSE)
    assert level.sd == pytest.approx(float(values.std()), rel=0.2)


@pytest.mark.parametrize("shape", [(6, 9, 0), (48, 200, 0)], ids=["rotations", "closed form"])
def test_another_matrix_of_the_same_weights_has_its_own_level(shape):
    """Δ = W − W⁽⁰⁾ stands in NFM with initialisation removed."""
    o, i, spikes = shape
    W, S = spiked(o, i, spikes), positive(o, 4, seed=3)
    change = W - gaussian(o, i, seed=9) / i**0.5
    half, norm = W @ change.T, float((change @ change.T).norm())
    level = levels(S, W @ W.T, half @ half.T, norm)["best"]
    values = reference.shared_nfm_init_removed(W, W - change, S, 200, torch.Generator().manual_seed(0))
    assert level.mean == pytest.approx(float(values.mean()), abs=0.01 + 3 * float(values.std()) / 200**0.5)
    assert abs(levels(S, W @ W.T)["best"].mean - level.mean) > 0.03


def test_the_draws_written_out_here_are_those_of_the_reference():
    W, S = spiked(7, 5, 1), positive(7, 3, seed=1)
    mine = turned(S, W @ W.T, 300)
    others = reference.shared_nfm(W, S, 300, torch.Generator().manual_seed(1))
    assert_mean(mine, float(others.mean()), errors=6)


class TestUndefined:
    def test_one_dimension_cannot_be_rotated(self):
        one = torch.ones(1, 1, dtype=torch.float64)
        assert levels(one, one) == {"closed": None, "rotated": None, "best": None}

    @pytest.mark.parametrize("entry", [0.0, math.nan, math.inf])
    @pytest.mark.parametrize("size", [4, 40])
    def test_what_has_no_norm_has_no_level(self, entry, size):
        C, bad = torch.eye(size, dtype=torch.float64), torch.full((size, size), entry, dtype=torch.float64)
        s, c = Powers.of([bad]), Powers.of([C])
        spectrum = Spectrum(C.diagonal(), C)
        assert closed_form(size, s, c, target(C, C, 1.0)) is None
        assert by_rotations([bad], s, c, spectrum, target(C, C, 1.0)) is None

    def test_another_matrix_without_a_norm_has_no_level(self):
        C, S = torch.eye(4, dtype=torch.float64), positive(4, 2)
        s, c, b = Powers.of([S]), Powers.of([C]), target(C, 0 * C, 0.0)
        assert closed_form(4, s, c, b) is None
        assert by_rotations([S], s, c, Spectrum(C.diagonal(), 0 * C), b) is None


class TestEstimates:
    def test_of_one_matrix_known_twice_powers_are_those_of_the_matrix(self):
        S = positive(6, 3)
        assert Powers.of([S, S]) == pytest.approx(tuple(Powers.of([S])), rel=1e-12)
        values = torch.linalg.eigvalsh(S)
        expected = [float(values.pow(power).sum()) for power in (1, 2, 3, 4)]
        assert Powers.of([S]) == pytest.approx(expected, rel=1e-9)

    def test_of_independent_estimates_squares_are_right_on_average(self):
        """Where that of a single noisy estimate is too large."""
        S, noise = positive(6, 6), gaussian(2000, 2, 6, 6)
        noisy = S + noise + noise.mT
        mean = torch.tensor([Powers.of(list(pair))[:2] for pair in noisy], dtype=torch.float64)
        for column, exact in zip(mean.unbind(dim=1), Powers.of([S]), strict=False):
            assert_mean(column, exact)
        assert sum(Powers.of([pair[0]]).two for pair in noisy) / 2000 > Powers.of([S]).two + 50

    def test_products_are_those_of_different_estimates(self):
        assert mean_product([torch.tensor([[2.0]]), torch.tensor([[3.0]])], inner) == 6
        assert mean_product([torch.tensor([[x]]) for x in (1.0, 2.0, 4.0)], inner) == (2 + 4 + 8) / 3
        assert mean_product([torch.tensor([[3.0]])], inner) == 9

    def test_noisy_estimates_give_the_level_of_the_matrix(self):
        W, S = spiked(8, 12, 2), positive(8, 3)
        C, noise = W @ W.T, gaussian(2, 8, 8, seed=4) * float(S.norm()) / 200
        noisy = [S + part + part.T for part in noise]
        values = torch.linalg.eigvalsh(C)
        spectrum = Spectrum(values.flip(0), values.flip(0).square().diag())
        found = by_rotations(noisy, Powers.of(noisy), Powers.of([C]), spectrum, target(C, C @ C, float(C.norm())))
        assert found == pytest.approx(levels(S, C)["best"], abs=0.02)


class TestRotations:
    def test_only_what_stands_out_is_rotated_one_by_one(self):
        flat = torch.ones(100, dtype=torch.float64)
        assert outstanding(flat, 100) == 0
        assert outstanding(torch.cat([50 * flat[:3], flat]), 103) == 3
        assert outstanding(torch.cat([flat[:2], 0 * flat]), 102) == 2
        assert outstanding(flat[:5], 5) == 5

    def test_never_all_but_one(self):
        """A single dimension that is left has no rotations of its own."""
        values = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0], dtype=torch.float64)
        assert outstanding(values, 5) == 5
        assert outstanding(values[:4], 5) == 5
        assert outstanding(values[:3], 5) == 3

    @pytest.mark.parametrize(("count", "size"), [(4, 4), (2, 7), (1, 1)])
    def test_rows_are_orthonormal_and_favour_no_direction_and_no_sign(self, count, size):
        rows = torch.cat(list(haar_rows(count, size, 3, draws=1000)))
        assert rows.shape == (1000, count, size)
        torch.testing.assert_close(rows @ rows.mT, torch.eye(count).double().expand(1000, -1, -1), rtol=0, atol=1e-12)
        traces = rows.diagonal(dim1=1, dim2=2).sum(dim=1)
        assert_mean(traces, 0)
        assert float(traces.square().mean()) == pytest.approx(count / size, rel=0.2)

    def test_they_are_the_same_every_time_and_leave_the_generator_alone(self):
        state = torch.get_rng_state()
        first, second, other = (torch.cat(list(haar_rows(3, 6, seed))) for seed in (0, 0, 1))
        assert len(first) == DRAWS
        assert torch.equal(first, second)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), state)


def test_float32_is_close_to_float64():
    W, S = spiked(20, 50, 3), positive(20, 5, seed=1)
    C = W @ W.T
    exact, single = levels(S, C)["best"], levels(S.float().double(), (W.float() @ W.float().T).double())["best"]
    assert single == pytest.approx(exact, abs=1e-4)
