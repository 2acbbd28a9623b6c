"""Stable rank, subspace overlap and exponent against the dense float64 reference, and closed forms."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.maths.congruence import Congruence
from nfa.maths.similarity import Similarity
from nfa.maths.spectrum import Fit, exponent, stable_rank, subspace_overlap

FORMS = ("factor", "core", "both")
CLOSE = 1e-6


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(size: int, *, seed: int = 0) -> Tensor:
    return torch.linalg.qr(draw(size, size, seed=seed))[0]


def matrix(form: str, i: int, r: int, seed: int, *, definite: bool = True) -> Congruence:
    """A random congruence of side i; its core has eigenvalues of both signs where it is not to be `definite`."""
    side = i if form == "core" else r
    half, factor = draw(side, side, seed=seed), draw(r, i, seed=seed + 1000)
    core = half.T @ half if definite else half + half.T
    return Congruence(None if form == "core" else factor, None if form == "factor" else core)


def diagonal(*entries: float) -> Congruence:
    return Congruence(None, torch.diag(torch.tensor(entries, dtype=torch.float64)))


def rotated(a: Congruence, Q: Tensor) -> Congruence:
    return Congruence(Q if a.factor is None else a.factor @ Q, a.core)


def scaled(a: Congruence, scale: float) -> Congruence:
    return Congruence(a.factor, a.core * scale) if a.core is not None else Congruence(a.factor * scale**0.5, None)


def zero(form: str, i: int) -> Congruence:
    a = matrix(form, i, 3, 0)
    return Congruence(*(part if part is None else torch.zeros_like(part) for part in (a.factor, a.core)))


def spoilt(form: str, i: int, entry: float) -> list[Congruence]:
    """A matrix with one entry replaced on the diagonal of its factor, and one with that of its core."""
    a, found = matrix(form, i, 3, 0), []
    for name in ("factor", "core"):
        if (part := getattr(a, name)) is not None:
            part = part.clone()
            part[1, 1] = entry
            found.append(dataclasses.replace(a, **{name: part}))
    return found


not_finite = pytest.mark.parametrize("entry", [math.nan, math.inf, -math.inf, 1e200])  # 1e200 squared is infinite
sizes = st.integers(1, 12)
forms = st.sampled_from(FORMS)
seeds = st.integers(0, 99)


class TestStableRank:
    @given(forms, sizes, sizes, seeds, st.booleans())
    @settings(max_examples=60)
    def test_equals_the_reference(self, form, i, r, seed, definite):
        a = matrix(form, i, r, seed, definite=definite)
        assert stable_rank(a) == pytest.approx(reference.stable_rank(a.dense()), rel=CLOSE)

    @given(forms, sizes, sizes, seeds)
    @settings(max_examples=30)
    def test_lies_between_one_and_the_rank(self, form, i, r, seed):
        assert 1 - 1e-12 <= stable_rank(matrix(form, i, r, seed)) <= (i if form == "core" else min(i, r)) + 1e-12

    @pytest.mark.parametrize("i", [1, 7, 400])
    def test_of_the_identity_is_its_size_and_of_rank_one_is_one(self, i):
        assert stable_rank(Congruence(None, torch.eye(i))) == pytest.approx(i, rel=1e-12)
        assert stable_rank(Congruence(rotation(i), None)) == pytest.approx(i, rel=1e-12)
        assert stable_rank(Congruence(draw(1, i), None)) == pytest.approx(1, rel=1e-12)

    def test_counts_eigenvalues_of_either_sign_by_their_square(self):
        assert stable_rank(diagonal(-2, 1, 1, 0)) == pytest.approx(1.5, rel=1e-12)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("i", [5, 400])
    def test_of_a_zero_matrix_is_undefined(self, form, i):
        assert stable_rank(zero(form, i)) is None

    @not_finite
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("i", [5, 400])
    def test_of_a_matrix_that_is_not_finite_is_undefined(self, form, i, entry):
        assert {stable_rank(bad) for bad in spoilt(form, i, entry)} == {None}

    def test_where_the_square_of_the_norm_is_no_number_it_is_undefined(self):
        assert stable_rank(diagonal(1e200, 1)) is None
        assert stable_rank(diagonal(1e-200, 1e-200)) is None
        assert stable_rank(diagonal(1e150, 1e150)) == pytest.approx(2, rel=1e-12)

    def test_where_rounding_leaves_a_squared_norm_below_zero_it_is_undefined(self):
        """FACT of P = J W with J antisymmetric is zero: −½(WᵀP + PᵀW)."""
        W, half = draw(3, 8, seed=199), draw(3, 3, seed=1)
        exchange = torch.eye(6, dtype=torch.float64).roll(3, dims=0)
        fact = Congruence(torch.cat([W, (half - half.T) @ W]), -0.5 * exchange)
        assert Similarity().inner(fact, fact) < 0
        assert stable_rank(fact) is None

    @given(forms, sizes, sizes, seeds, st.integers(-12, 12))
    @settings(max_examples=20)
    def test_neither_scale_nor_a_rotation_changes_it(self, form, i, r, seed, power):
        a = matrix(form, i, r, seed)
        assert stable_rank(scaled(a, 10.0**power)) == pytest.approx(stable_rank(a), rel=1e-9)
        assert stable_rank(rotated(a, rotation(i))) == pytest.approx(stable_rank(a), rel=1e-9)

    def test_a_stretch_changes_it(self):
        a = matrix("core", 6, 6, 0)
        assert abs(stable_rank(Congruence(torch.diag(torch.arange(1.0, 7.0).double()), a.core)) - stable_rank(a)) > 0.01

    def test_float32_is_within_1e_5_of_float64(self):
        a = matrix("both", 500, 40, 0)
        single = Congruence(a.factor.float(), a.core.float())
        assert stable_rank(single) == pytest.approx(reference.stable_rank(a.dense()), rel=1e-5)


class TestSubspaceOverlap:
    @given(forms, forms, sizes, st.tuples(sizes, sizes), seeds, st.booleans(), st.integers(1, 12))
    @settings(max_examples=80)
    def test_equals_the_reference_or_is_undefined_with_it(self, first, second, i, ranks, seed, definite, k):
        a, b = (
            matrix(form, i, r, seed + offset, definite=definite)
            for form, r, offset in zip((first, second), ranks, (0, 500), strict=True)
        )
        rank = min(i if form == "core" else min(i, r) for form, r in zip((first, second), ranks, strict=True))
        found = subspace_overlap(a, b, k)
        assert (found is None) == (k > rank)
        if found is not None:
            assert found == pytest.approx(reference.subspace_overlap(a.dense(), b.dense(), k), rel=CLOSE, abs=1e-12)

    @pytest.mark.parametrize(("form", "i", "r"), [("factor", 400, 30), ("both", 400, 500), ("core", 300, 300)])
    def test_equals_the_reference_where_only_a_few_eigenvectors_are_computed(self, form, i, r):
        a, b = matrix(form, i, r, 0, definite=False), matrix("factor", i, 9, 1)
        b = Congruence(torch.cat([b.factor, a.dense()[:20]]), None)
        for k in (1, 5):
            exact = reference.subspace_overlap(a.dense(), b.dense(), k)
            assert subspace_overlap(a, b, k) == pytest.approx(exact, rel=CLOSE, abs=1e-12)

    @pytest.mark.parametrize("i", [6, 400])
    def test_of_the_same_subspace_is_one_and_of_orthogonal_ones_zero(self, i):
        Q = rotation(i)
        a, b, c = (Congruence(scales[:, None] * rows, None) for scales, rows in self.three(Q))
        assert subspace_overlap(a, b, 3) == pytest.approx(1, abs=1e-12)
        assert subspace_overlap(a, c, 3) == pytest.approx(0, abs=1e-12)
        assert subspace_overlap(a, a, 2) == pytest.approx(1, abs=1e-12)

    @staticmethod
    def three(Q: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Two bases of one subspace, with different scales along it, and a basis of an orthogonal one."""
        mixed = rotation(3, seed=1) @ Q[:3]
        scales = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
        return [(scales, Q[:3]), (scales.flip(0), mixed), (scales, Q[3:6])]

    def test_a_part_in_common_counts_as_its_share(self):
        assert subspace_overlap(diagonal(3, 2, 1, 0.5), diagonal(3, 0.5, 2, 1), 2) == pytest.approx(0.5, abs=1e-12)

    def test_the_largest_eigenvalues_are_those_largest_in_magnitude(self):
        assert subspace_overlap(diagonal(-5, 1, 2, 0.1), diagonal(4, 0.1, 3, 1), 2) == pytest.approx(1, abs=1e-12)

    def test_random_subspaces_overlap_by_k_over_i(self):
        """On average; the standard error of 200 draws of 3 dimensions in 12 is 0.007."""
        drawn = [subspace_overlap(matrix("core", 12, 12, s), matrix("core", 12, 12, s + 300), 3) for s in range(200)]
        assert sum(drawn) / len(drawn) == pytest.approx(3 / 12, abs=0.03)

    @given(forms, st.integers(2, 12), seeds, st.integers(-12, 12))
    @settings(max_examples=20)
    def test_neither_scale_nor_a_common_rotation_changes_it(self, form, i, seed, power):
        a, b, Q = matrix(form, i, i, seed), matrix("core", i, i, seed + 500), rotation(i)
        value = subspace_overlap(a, b, 1)
        assert subspace_overlap(scaled(a, 10.0**power), b, 1) == pytest.approx(value, abs=1e-9)
        assert subspace_overlap(rotated(a, Q), rotated(b, Q), 1) == pytest.approx(value, abs=1e-9)

    def test_matrices_of_vanishing_gradients_are_no_special_case(self):
        values = 0.97 ** torch.arange(400, dtype=torch.float64)
        a, b = (Congruence(rotation(400, seed=seed), torch.diag(values)) for seed in (0, 1))
        exact = reference.subspace_overlap(a.dense(), b.dense(), 9)
        for scale in (1e-12, 1e-40):
            assert subspace_overlap(scaled(a, scale), scaled(b, scale), 9) == pytest.approx(exact, rel=CLOSE)

    def test_where_the_subspace_is_not_unique_the_same_one_is_found_every_time(self):
        one, b = Congruence(None, torch.eye(400, dtype=torch.float64)), matrix("factor", 400, 5, 0)
        assert len({subspace_overlap(one, b, 3) for _ in range(3)}) == 1

    def test_it_is_symmetric_and_the_full_space_agrees_with_itself(self):
        a, b = matrix("both", 7, 9, 0), matrix("core", 7, 7, 5)
        assert subspace_overlap(a, b, 3) == pytest.approx(subspace_overlap(b, a, 3), abs=1e-12)
        assert subspace_overlap(a, b, 7) == pytest.approx(1, abs=1e-12)

    def test_a_rotation_of_one_changes_it(self):
        a, b = matrix("both", 8, 8, 0), matrix("core", 8, 8, 5)
        for k in (1, 3):
            assert abs(subspace_overlap(rotated(a, rotation(8)), b, k) - subspace_overlap(a, b, k)) > 0.01

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("i", [5, 400])
    def test_with_a_zero_matrix_it_is_undefined(self, form, i):
        assert subspace_overlap(zero(form, i), matrix("core", i, i, 0), 1) is None
        assert subspace_overlap(matrix("core", i, i, 0), zero(form, i), 1) is None

    @not_finite
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("i", [5, 400])
    def test_with_a_matrix_that_is_not_finite_it_is_undefined(self, form, i, entry):
        other = matrix("core", i, i, 0)
        for bad in spoilt(form, i, entry):
            assert [subspace_overlap(*pair, 1) for pair in ((bad, other), (other, bad), (bad, bad))] == [None] * 3

    @pytest.mark.parametrize("i", [6, 400])
    def test_with_more_dimensions_than_a_matrix_has_it_is_undefined(self, i):
        a, b = Congruence(draw(2, i), None), matrix("core", i, i, 0)
        assert subspace_overlap(a, b, 2) is not None
        assert subspace_overlap(a, b, 3) is None
        assert subspace_overlap(b, b, i + 1) is None

    def test_an_eigenvalue_below_a_millionth_of_the_largest_is_none(self):
        a = diagonal(1, 1.1e-6, 0.9e-6)
        assert subspace_overlap(a, a, 2) == pytest.approx(1, abs=1e-12)
        assert subspace_overlap(a, a, 3) is None


def power_pair(i: int, power: float, seed: int = 0) -> tuple[Congruence, Congruence]:
    """M = 7 Aᵖ and A, with eigenvalues of A from 1 to 100."""
    Q, values = rotation(i, seed=seed), torch.logspace(0, 2, i, dtype=torch.float64)
    return Congruence((7 * values**power).sqrt()[:, None] * Q, None), Congruence(Q, torch.diag(values))


class TestExponent:
    @given(st.sampled_from(["factor", "core"]), forms, sizes, st.tuples(sizes, sizes), seeds)
    @settings(max_examples=80)
    def test_equals_the_reference_or_is_undefined_with_it(self, first, second, i, ranks, seed):
        nfm, agop = matrix(first, i, ranks[0], seed), matrix(second, i, ranks[1], seed + 500)
        try:
            exact = reference.exponent(nfm.dense(), agop.dense())
        except ValueError:
            assert exponent(nfm, agop) is None
        else:
            assert tuple(exponent(nfm, agop)) == pytest.approx(exact, rel=CLOSE)

    @given(st.integers(1, 9), st.integers(1, 9), seeds)
    @settings(max_examples=30)
    def test_equals_the_reference_for_weights_and_their_agop(self, o, i, seed):
        """AGOP = Wᵀ S W: where W has fewer outputs than inputs both matrices have the same null space."""
        W, core = draw(o, i, seed=seed), matrix("core", o, o, seed).core
        nfm, agop = Congruence(W, None), Congruence(W, core)
        found = exponent(nfm, agop)
        assert (found is None) == (min(o, i) < 3)
        if found is not None:
            assert tuple(found) == pytest.approx(reference.exponent(nfm.dense(), agop.dense()), rel=CLOSE)

    @given(st.integers(3, 9), st.floats(-2, 2), seeds)
    @settings(max_examples=20)
    def test_of_a_power_is_that_power_without_error(self, i, power, seed):
        slope, se = exponent(*power_pair(i, power, seed))
        assert slope == pytest.approx(power, abs=1e-9)
        assert se == pytest.approx(0, abs=1e-9)

    def test_three_points_have_the_error_of_the_textbook(self):
        """x = 0, 1, 2 and y = 0, 1, 5 (in logs): slope 5/2, residuals ½, −1, ½, so the error is √(1.5 / 1 / 2)."""
        found = exponent(diagonal(1, math.e, math.e**5), diagonal(1, math.e, math.e**2))
        assert isinstance(found, Fit)
        assert found.slope == pytest.approx(2.5, rel=1e-12)
        assert found.se == pytest.approx(math.sqrt(0.75), rel=1e-12)

    def test_the_cutoff_removes_small_directions_of_either_matrix(self):
        nfm, agop = diagonal(1, 4, 9, 1e-3, 2), diagonal(1, 16, 81, 5, 1e-3)
        assert exponent(nfm, agop, cutoff=1e-2).slope == pytest.approx(0.5, abs=1e-12)
        assert abs(exponent(nfm, agop).slope - 0.5) > 0.1
        assert exponent(nfm, agop, cutoff=0.5) is None

    def test_neither_scale_nor_a_common_rotation_changes_it(self):
        nfm, agop = matrix("factor", 7, 5, 0), matrix("both", 7, 9, 1)
        found = exponent(nfm, agop)
        for moved in ((scaled(nfm, 1e6), agop), (nfm, scaled(agop, 1e-9))):
            assert tuple(exponent(*moved)) == pytest.approx(tuple(found), rel=1e-9)
        Q = rotation(7)
        assert tuple(exponent(rotated(nfm, Q), rotated(agop, Q))) == pytest.approx(tuple(found), rel=1e-9)

    def test_a_rotation_of_one_and_an_exchange_change_it(self):
        nfm, agop = power_pair(6, 0.5)
        assert abs(exponent(nfm, rotated(agop, rotation(6, seed=3))).slope - 0.5) > 0.1
        dense = Congruence(None, agop.dense())
        assert exponent(dense, nfm).slope == pytest.approx(2, abs=1e-9)

    @pytest.mark.parametrize("form", FORMS)
    def test_with_a_zero_matrix_it_is_undefined(self, form):
        other = matrix("core", 5, 5, 0)
        assert exponent(other, zero(form, 5)) is None
        if form != "both":
            assert exponent(zero(form, 5), other) is None

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("entry", [math.nan, math.inf, -math.inf])
    def test_with_a_matrix_that_is_not_finite_it_is_undefined(self, form, entry):
        other = matrix("core", 5, 5, 0)
        for bad in spoilt(form, 5, entry):
            assert [exponent(*pair) for pair in ((bad, other), (other, bad), (bad, bad))] == [None] * 3

    def test_with_a_factor_whose_square_is_infinite_it_is_undefined(self):
        (bad,) = spoilt("factor", 5, 1e200)
        assert exponent(bad, matrix("core", 5, 5, 0)) is None
        assert exponent(matrix("core", 5, 5, 0), bad) is None

    def test_without_three_directions_or_with_equal_quotients_it_is_undefined(self):
        agop = matrix("core", 5, 5, 1)
        assert exponent(Congruence(draw(2, 5), None), agop) is None
        assert exponent(Congruence(draw(3, 5), None), agop) is not None
        for Q in (torch.eye(5, dtype=torch.float64), rotation(5)):
            assert exponent(matrix("core", 5, 5, 0), Congruence(Q, None)) is None
            assert exponent(matrix("factor", 5, 4, 0), Congruence(Q, None)) is None
