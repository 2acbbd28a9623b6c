"""Low-rank matrices against dense float64 SVDs: from factors, randomised, extended, split, with noise."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.maths.low_rank import (
    FactorPair,
    LowRank,
    balanced,
    distance,
    energy_ratio,
    extended,
    noise,
    noise_sigma,
    norm,
    relative_error,
    stable_rank,
    svd_of_matrix,
    svd_of_product,
)
from nfa.maths.svd_flops import flops_of_matrix, flops_of_product

SIDES, RANKS, SEEDS = st.integers(1, 24), st.integers(1, 30), st.integers(0, 99)
TYPES = {torch.float32: 2e-6, torch.float64: 1e-14}  # error of a singular value, in units of the largest


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def factors(o: int, i: int, k: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> FactorPair:
    return FactorPair(draw(o, k, seed=seed, dtype=dtype), draw(k, i, seed=seed + 1000, dtype=dtype))


def dense(matrix: LowRank | FactorPair) -> Tensor:
    b, a = matrix.factors if isinstance(matrix, LowRank) else matrix
    return b.double() @ a.double()


def falling(o: int, i: int, values: Tensor, seed: int = 0) -> Tensor:
    """A dense matrix with these singular values."""
    u, v = (torch.linalg.qr(draw(side, len(values), seed=seed + side)).Q for side in (o, i))
    return (u * values) @ v.T


def assert_orthonormal(matrix: LowRank, atol: float) -> None:
    for columns in (matrix.u, matrix.vh.T):
        torch.testing.assert_close(
            columns.T @ columns, torch.eye(columns.shape[1], dtype=columns.dtype), atol=atol, rtol=0
        )


class TestSVDOfProduct:
    @given(SIDES, SIDES, RANKS, SEEDS, st.sampled_from(list(TYPES)), st.sampled_from([1.0, 2.5, -0.5]))
    @settings(max_examples=120)
    def test_equals_the_full_svd_of_the_dense_product(self, o, i, k, seed, dtype, scale):
        given_factors, atol = factors(o, i, k, seed, dtype), TYPES[dtype]
        found = svd_of_product(given_factors, scale)
        assert found.u.shape[1] == min(o, i, k)
        assert found.s.dtype == dtype
        product = scale * dense(given_factors)
        _, s, _ = reference.truncated_svd(product, min(o, i, k))
        torch.testing.assert_close(found.s.double(), s, atol=atol * 20 * float(s[0]), rtol=0)
        torch.testing.assert_close(dense(found), product, atol=atol * 20 * float(s[0]), rtol=0)
        assert_orthonormal(found, atol * 20)

    @given(SIDES, SIDES, st.integers(0, 4), SEEDS)
    @settings(max_examples=40)
    def test_is_exact_for_factors_of_lower_rank(self, o, i, rank, seed):
        small = factors(o, i, max(1, rank), seed)
        b, a = small.b @ draw(max(1, rank), 8, seed=seed + 1), torch.linalg.pinv(draw(max(1, rank), 8, seed=seed + 1))
        product = FactorPair(b * bool(rank), a @ small.a)
        found = svd_of_product(product)
        torch.testing.assert_close(dense(found), dense(product), atol=1e-12 * (1 + norm(product)), rtol=0)
        assert found.rank == min(o, i, rank)

    def test_leaves_the_factors_as_they_were(self):
        given_factors = factors(9, 7, 3)
        before = [part.clone() for part in given_factors]
        svd_of_product(given_factors, 3.0)
        assert all(torch.equal(one, other) for one, other in zip(given_factors, before, strict=True))

    def test_never_forms_the_product(self):
        """A million rows and columns: the product would take 4 TB."""
        found = svd_of_product(factors(10**6, 10**6, 1, dtype=torch.float32))
        assert (found.u.shape, found.vh.shape) == ((10**6, 1), (1, 10**6))


class TestSVDOfMatrix:
    @pytest.mark.parametrize("shape", [(200, 300), (300, 200), (260, 260)])
    @pytest.mark.parametrize("dtype", TYPES)
    def test_a_slowly_falling_spectrum_is_met_within_one_percent(self, shape, dtype):
        W = falling(*shape, torch.exp(-0.02 * torch.arange(200, dtype=torch.float64))).to(dtype)
        found = svd_of_matrix(W, 16)
        _, s, _ = reference.truncated_svd(W, 16)
        torch.testing.assert_close(found.s.double(), s, rtol=0.01, atol=0)
        assert (found.s.double() <= s * (1 + 1e-5)).all()
        assert_orthonormal(found, 1e-5)

    @given(SIDES, SIDES, st.integers(1, 20), SEEDS)
    @settings(max_examples=40)
    def test_is_exact_where_there_are_directions_enough(self, o, i, rank, seed):
        W = draw(o, i, seed=seed)
        found = svd_of_matrix(W, rank, oversampling=24)
        u, s, vh = reference.truncated_svd(W, rank)
        torch.testing.assert_close(found.s, s, atol=1e-12, rtol=0)
        torch.testing.assert_close(dense(found), (u * s) @ vh, atol=1e-9, rtol=0)

    def test_depends_on_its_seed_alone_and_moves_no_generator(self):
        W = draw(80, 70)
        torch.manual_seed(3)
        before = torch.get_rng_state()
        first = svd_of_matrix(W, 4, seed=1)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(4)
        assert all(torch.equal(a, b) for a, b in zip(first, svd_of_matrix(W, 4, seed=1), strict=True))
        assert not torch.equal(first.u, svd_of_matrix(W, 4, seed=2).u)

    def test_too_few_iterations_do_not_suffice(self):
        """So the default is not smaller than it has to be."""
        W = falling(400, 400, torch.exp(-0.004 * torch.arange(400, dtype=torch.float64)))
        _, s, _ = reference.truncated_svd(W, 16)
        errors = [
            float((1 - svd_of_matrix(W, 16, oversampling=p, iterations=n).s / s).max()) for p, n in ((8, 0), (16, 4))
        ]
        assert errors[0] > 0.1 > 0.05 > errors[1]


class TestTruncation:
    @given(SIDES, SIDES, st.integers(1, 12), st.integers(1, 12), SEEDS)
    @settings(max_examples=40)
    def test_error_and_energy_equal_the_reference_and_complete_each_other(self, o, i, k, rank, seed):
        product = factors(o, i, k, seed)
        found = svd_of_product(product).truncated(rank)
        size = norm(product)
        energy, error = energy_ratio(found.s, size), relative_error(product, found.factors)
        assert energy == pytest.approx(reference.energy_ratio(dense(product), rank), abs=1e-12)
        assert error == pytest.approx(reference.truncation_error(dense(product), dense(found)), abs=1e-13)
        assert error**2 + energy == pytest.approx(1, abs=1e-12)

    @given(SIDES, SIDES, st.integers(1, 12), SEEDS)
    @settings(max_examples=30)
    def test_no_other_matrix_of_the_rank_is_nearer(self, o, i, rank, seed):
        W = draw(o, i, seed=seed)
        nearest = svd_of_matrix(W, rank, oversampling=24)
        moved = LowRank(nearest.u + 0.01 * draw(o, len(nearest.s), seed=seed), nearest.s, nearest.vh)
        assert distance(W, nearest.factors) <= distance(W, moved.factors) + 1e-12

    @given(SIDES, SIDES, st.integers(1, 12), SEEDS)
    @settings(max_examples=30)
    def test_norms_of_dense_and_factored_matrices_agree(self, o, i, k, seed):
        product, other = factors(o, i, k, seed), factors(o, i, 2, seed + 1)
        assert norm(product) == pytest.approx(norm(dense(product)), rel=1e-12)
        assert distance(product, other) == pytest.approx(distance(dense(product), other), rel=1e-12)

    @given(SIDES, SIDES, st.integers(1, 12), SEEDS)
    @settings(max_examples=30)
    def test_stable_rank_is_the_squared_norm_over_the_squared_largest_singular_value(self, o, i, k, seed):
        product = factors(o, i, k, seed)
        squares = reference.truncated_svd(dense(product), min(o, i))[1].square()
        found = stable_rank(float(svd_of_product(product).s[0]), norm(product))
        assert found == pytest.approx(float(squares.sum() / squares[0]), rel=1e-10)

    def test_a_zero_matrix_has_no_ratios(self):
        zero = FactorPair(torch.zeros(5, 2), draw(2, 4, dtype=torch.float32))
        found = svd_of_product(zero)
        assert found.rank == 0
        assert norm(zero) == 0
        assert (relative_error(zero, found.factors), energy_ratio(found.s, 0.0), stable_rank(0.0, 0.0)) == (None,) * 3

    def test_a_tiny_matrix_is_no_zero_matrix(self):
        tiny = FactorPair(1e-30 * draw(5, 2), 1e-30 * draw(2, 4))
        found = svd_of_product(tiny)
        assert found.rank == 2
        assert relative_error(tiny, found.truncated(2).factors) == pytest.approx(0, abs=1e-12)


class TestBalanced:
    @given(SIDES, SIDES, st.integers(1, 8), SEEDS, st.sampled_from([0.25, 1.0, 2.0]))
    @settings(max_examples=40)
    def test_scaling_times_the_product_is_the_matrix_and_both_sides_weigh_the_same(self, o, i, k, seed, scaling):
        matrix = svd_of_product(factors(o, i, k, seed))
        b, a = balanced(matrix, scaling)
        torch.testing.assert_close(scaling * b @ a, dense(matrix), atol=1e-12 * float(matrix.s[0]), rtol=0)
        torch.testing.assert_close(b.T @ b, a @ a.T, atol=1e-12 * float(matrix.s[0]) / scaling, rtol=0)

    def test_gradients_of_both_sides_are_then_alike_and_with_all_of_s_on_b_they_are_not(self):
        """For a loss with gradient G of W, dB = scaling·G Aᵀ and dA = scaling·Bᵀ G."""
        matrix = svd_of_product(factors(64, 64, 4), 100.0)
        G = draw(64, 64, seed=5)

        def ratio(pair: FactorPair) -> float:
            return norm(pair.b.T @ G) / norm(G @ pair.a.T)

        assert 0.5 < ratio(balanced(matrix, 1.0)) < 2
        assert ratio(matrix.factors) > 1000


class TestExtended:
    @given(SIDES, SIDES, st.integers(1, 8), st.integers(1, 40), SEEDS)
    @settings(max_examples=60)
    def test_triplets_are_kept_and_the_new_ones_are_orthonormal_to_them(self, o, i, k, rank, seed):
        matrix = svd_of_product(factors(o, i, k, seed))
        kept = len(matrix.s)
        found = extended(matrix, rank, 0.04, torch.Generator().manual_seed(seed))
        assert len(found.s) == max(kept, min(rank, o, i))
        assert all(torch.equal(a, b) for a, b in zip(found.truncated(kept), matrix, strict=True))
        assert_orthonormal(found, 1e-12)
        j = torch.arange(1, len(found.s) - kept + 1, dtype=torch.float64)
        torch.testing.assert_close(found.s[kept:], matrix.s[-1] * torch.exp(-0.04 * j))

    def test_its_spectrum_is_that_of_the_dense_matrix(self):
        found = extended(svd_of_product(factors(40, 50, 4)), 32, 0.04, torch.Generator().manual_seed(0))
        _, s, _ = reference.truncated_svd(dense(found), 40)
        torch.testing.assert_close(s[:32], found.s, rtol=1e-12, atol=0)
        assert float(s[32:].max()) < 1e-12
        assert float(found.s[-1] / found.s[3]) == pytest.approx(math.exp(-0.04 * 28))

    def test_same_generator_same_directions_and_another_one_others(self):
        matrix = svd_of_product(factors(40, 50, 4))
        one, same, other = (extended(matrix, 8, 0.1, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert torch.equal(one.u, same.u)
        assert not torch.equal(one.u, other.u)
        assert not torch.equal(one.vh, other.vh)


class TestNoise:
    @pytest.mark.parametrize("shape", [(256, 256), (192, 576), (600, 150)])
    def test_its_spectral_norm_is_what_was_asked_for(self, shape):
        drawn = noise(shape, noise_sigma(0.3, shape), 1, "layer")
        assert float(torch.linalg.matrix_norm(drawn, 2)) == pytest.approx(0.3, rel=0.05)

    def test_depends_on_seed_and_name_alone(self):
        torch.manual_seed(0)
        one = noise((8, 9), 0.5, 7, "a")
        torch.manual_seed(1)
        assert torch.equal(one, noise((8, 9), 0.5, 7, "a"))
        assert not torch.equal(one, noise((8, 9), 0.5, 7, "b"))
        assert not torch.equal(one, noise((8, 9), 0.5, 8, "a"))

    def test_half_of_s_r_leaves_the_subspace_where_it_was(self):
        matrix = svd_of_product(factors(300, 300, 8))
        sigma = noise_sigma(0.5 * float(matrix.s[-1]), (300, 300))
        noisy = dense(matrix) + noise((300, 300), sigma, 0, "a").double()
        u, _, _ = reference.truncated_svd(noisy, 8)
        assert float(reference.subspace_cosines(u, matrix.u).min()) > 0.85


class TestFlops:
    @pytest.mark.parametrize("shape", [(576, 576), (192, 576), (576, 1536)])
    def test_from_factors_is_far_less_than_randomised_and_that_than_full(self, shape):
        full = flops_of_matrix(shape, min(shape), 0, 0)
        randomised = flops_of_matrix(shape, 16, 16, 4)
        assert 10 * flops_of_product(shape, 16) < randomised < full

    def test_counts_do_not_depend_on_which_side_is_longer(self):
        assert flops_of_matrix((30, 90), 4, 4, 2) == flops_of_matrix((90, 30), 4, 4, 2)
        assert flops_of_product((30, 90), 4) == flops_of_product((90, 30), 4)
