"""Levels of chance against random rotations, and where there are none."""

import math

import pytest
import torch
from torch import Tensor

from nfa import reference
from nfa.maths.chance import Level, Rotated, cosine_by_chance, overlap_by_chance, pearson_by_chance
from tests.support.rotations import assert_mean, assert_spread, gaussian, positive, rotations, uniform

IDENTITY = Rotated(3, 3.0, 3.0)
PROJECTION = Rotated(3, 1.0, 1.0)


def invariants(A: Tensor) -> Rotated:
    return Rotated(len(A), float(A.trace()), float(A.square().sum()))


def pairs(count: int, sizes: tuple[int, int]) -> list[tuple[Tensor, Tensor]]:
    """Pairs of symmetric matrices of sizes between these, of ranks from 1 to full; every third one is indefinite."""
    drawn = []
    for seed in range(count):
        x = uniform(5, seed=seed).tolist()
        size = sizes[0] + int(x[0] * (sizes[1] - sizes[0] + 1))
        ranks = [1 if share < 0.2 else size if share > 0.8 else 1 + int(share * (size - 1)) for share in x[1:3]]
        A, B = (positive(size, rank, seed=2 * seed + n, decay=x[3 + n]) for n, rank in enumerate(ranks))
        drawn.append((A - x[0] * positive(size, ranks[0], seed=seed + 999) if seed % 3 == 2 else A, B))
    return drawn


def turned(A: Tensor, B: Tensor, draws: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines of A and QBQᵀ, Pearson's r of their entries, and overlaps of subspaces of dimension k."""
    u, v = (torch.linalg.eigh(M).eigenvectors[:, -k:] for M in (A, B))
    cosines, pearsons, overlaps = [], [], []
    centred = A - A.mean()
    for Q in rotations(draws, len(A)):
        X = Q @ B @ Q.mT
        cosines.append((X * A).sum(dim=(1, 2)) / A.norm() / B.norm())
        X = X - X.mean(dim=(1, 2), keepdim=True)
        pearsons.append((X * centred).sum(dim=(1, 2)) / centred.norm() / X.flatten(1).norm(dim=1))
        overlaps.append((u.T @ Q @ v).square().sum(dim=(1, 2)) / k)
    return torch.cat(cosines), torch.cat(pearsons), torch.cat(overlaps)


def of_entries(A: Tensor, B: Tensor, *, exact: bool = True) -> Level | None:
    """The level of Pearson's r from what stands in its formula."""
    eigenvalues = torch.linalg.eigvalsh(B) if exact else None
    return pearson_by_chance(invariants(A - A.mean()), invariants(B), eigenvalues)


def assert_levels_of(A: Tensor, B: Tensor, draws: int) -> None:
    k = 1 + len(A) // 3
    cosines, pearsons, overlaps = turned(A, B, draws, k)
    for values, level in (
        (cosines, cosine_by_chance(invariants(A), invariants(B))),
        (overlaps, overlap_by_chance(len(A), k)),
    ):
        assert level is not None
        assert_mean(values, level.mean)
        assert_spread(values, level.sd)
    entries = of_entries(A, B)
    assert entries is not None
    error = float(pearsons.std()) / draws**0.5
    assert abs(entries.mean - float(pearsons.mean())) < 0.01 + 3 * error * (draws < 5000)
    assert len(A) < 4 or abs(entries.sd - float(pearsons.std())) < 0.02  # approximate, and too rough for i < 4


@pytest.mark.parametrize("pair", pairs(8, (2, 12)), ids=lambda pair: f"{len(pair[0])}")
def test_levels_of_small_matrices_are_those_of_random_rotations(pair):
    assert_levels_of(*pair, draws=2000)


@pytest.mark.slow
@pytest.mark.parametrize("pair", pairs(50, (2, 64)), ids=lambda pair: f"{len(pair[0])}")
def test_levels_are_those_of_ten_thousand_rotations(pair):
    assert_levels_of(*pair, draws=10_000)


def test_large_matrices_have_a_level_with_centred_entries_without_their_eigenvalues():
    A, B = positive(80, 5) + 1, positive(80, 30, seed=1)
    (level, exact), values = (of_entries(A, B, exact=e) for e in (False, True)), turned(A, B, 200, 1)[1]
    assert level is not None
    assert exact is not None
    assert level.mean == pytest.approx(float(values.mean()), abs=0.01)
    assert level.mean == pytest.approx(exact.mean, abs=0.002)
    assert level.mean != exact.mean


def test_the_level_with_centred_entries_is_not_that_of_the_cosine():
    A, B = positive(6, 4) + 3, positive(6, 2, seed=1)
    plain, centred = cosine_by_chance(invariants(A), invariants(B)), of_entries(A, B)
    assert plain is not None
    assert centred is not None
    assert abs(plain.mean - centred.mean) > 0.04


def test_neither_a_rotation_nor_a_scale_moves_a_level():
    A, B, Q = positive(7, 3), positive(7, 7, seed=1), reference.rotation(7, torch.Generator().manual_seed(0))
    expected = cosine_by_chance(invariants(A), invariants(B))
    moved = cosine_by_chance(invariants(1e-9 * Q @ A @ Q.T), invariants(1e9 * B))
    assert moved == pytest.approx(expected, rel=1e-9)
    assert cosine_by_chance(invariants(B), invariants(A)) == pytest.approx(expected, rel=1e-12)


def test_adding_the_identity_moves_a_level():
    A, B = positive(7, 3), positive(7, 7, seed=1)
    before, after = (cosine_by_chance(invariants(A + d * torch.eye(7)), invariants(B)) for d in (0, 50))
    assert before is not None
    assert after is not None
    assert after.mean > before.mean + 0.1
    assert after.sd < before.sd


def test_a_multiple_of_the_identity_is_at_one_cosine_to_every_rotation():
    B = positive(3, 1)
    level = cosine_by_chance(IDENTITY, invariants(B))
    assert level == pytest.approx((3**-0.5, 0), abs=1e-7)
    assert cosine_by_chance(IDENTITY, IDENTITY) == (1, 0)


def test_rounding_below_the_norm_of_the_trace_is_no_reason_to_have_no_level():
    level = cosine_by_chance(Rotated(3, 3.0, 3.0 * (1 - 1e-8)), PROJECTION)
    assert level is not None
    assert level.sd == 0


def test_the_mean_over_rank_one_matrices_falls_with_their_size():
    means = [cosine_by_chance(Rotated(i, 1.0, 1.0), Rotated(i, 1.0, 1.0)) for i in (2, 10, 100)]
    assert [level.mean for level in means if level] == pytest.approx([1 / 2, 1 / 10, 1 / 100])


@pytest.mark.parametrize(
    "bad",
    [
        Rotated(3, 0.0, 0.0),
        Rotated(3, math.nan, math.nan),
        Rotated(3, math.inf, math.inf),
        Rotated(3, 1.0, math.inf),
        Rotated(3, math.nan, 1.0),
        Rotated(3, 1.0, math.nan),
        Rotated(3, 1.0, -1.0),
        Rotated(3, 3.0, 2.9),
    ],
    ids=["zero", "nan", "inf", "norm inf", "trace nan", "norm nan", "negative norm", "norm below that of the trace"],
)
@pytest.mark.parametrize("by_chance", [cosine_by_chance, pearson_by_chance])
def test_what_has_no_norm_has_no_level(bad, by_chance):
    assert by_chance(PROJECTION, PROJECTION) is not None
    for pair in ((bad, PROJECTION), (PROJECTION, bad), (bad, bad)):
        assert by_chance(*pair) is None


def test_numbers_have_no_level():
    one = Rotated(1, 2.0, 4.0)
    assert cosine_by_chance(one, one) is None
    assert pearson_by_chance(one, one) is None
    assert overlap_by_chance(1, 1) is None


def test_a_constant_matrix_rotated_has_a_level_and_a_multiple_of_the_identity_one_without_spread():
    """r of A and QBQᵀ for B = 1 is that of A and the identity, whatever Q."""
    A = positive(5, 5)
    level = of_entries(A, torch.eye(5, dtype=torch.float64))
    exact = reference.cosine(A, torch.eye(5), centre="entry")
    assert level == pytest.approx((exact, 0), abs=1e-7)
    assert of_entries(A, torch.ones(5, 5, dtype=torch.float64)) is not None


def test_the_whole_space_overlaps_with_itself_by_chance_too():
    assert overlap_by_chance(5, 5) == (1, 0)
    assert overlap_by_chance(5, 2) == pytest.approx((0.4, math.sqrt(2 / 28) * 0.6))


def test_levels_are_the_same_every_time_and_leave_the_generator_alone():
    A, B = gaussian(6, 6), positive(6, 6, seed=1)
    A, state = A + A.T, torch.get_rng_state()
    assert of_entries(A, B) == of_entries(A, B)
    assert torch.equal(torch.get_rng_state(), state)
