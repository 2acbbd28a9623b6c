"""Similarity against the dense float64 reference: what holds, to which digit, and what must not hold."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa import reference
from nfa.maths.congruence import Congruence
from nfa.maths.similarity import Similarity

FORMS = ("factor", "core", "both")


def pair(forms, i: int, ranks, seed: int, dtype=torch.float64, scale: float = 1.0) -> list[Congruence]:
    """Two positive semidefinite congruences of side `i`, their parts multiplied by `scale`."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    def matrix(form: str, r: int) -> Congruence:
        factor, half = draw(r, i), draw(*([i, i] if form == "core" else [r, r]))
        core = (half.T @ half * scale).to(dtype)
        return Congruence(None if form == "core" else (factor * scale).to(dtype), None if form == "factor" else core)

    return [matrix(form, r) for form, r in zip(forms, ranks, strict=True)]


sizes = st.integers(2, 12)
forms = st.tuples(st.sampled_from(FORMS), st.sampled_from(FORMS))


@given(forms, sizes, st.tuples(sizes, sizes), st.integers(0, 99), st.sampled_from(["none", "entry"]))
@settings(max_examples=50)
def test_inner_and_cosine_equal_the_dense_ones(forms, i, ranks, seed, centre):
    a, b = pair(forms, i, ranks, seed)
    A, B = a.dense(), b.dense()
    if centre == "entry":
        A, B = A - A.mean(), B - B.mean()
    similarity, scale = Similarity(centre), float(a.dense().norm() * b.dense().norm())
    assert similarity.inner(a, b) == pytest.approx(float((A * B).sum()), rel=1e-10, abs=1e-11 * scale)
    assert similarity.inner(b, a) == pytest.approx(similarity.inner(a, b), rel=1e-10, abs=1e-11 * scale)
    assert similarity.inner(a, a) == pytest.approx(float(A.square().sum()), rel=1e-10, abs=1e-11 * scale)
    assert similarity.cosine(a, b) == pytest.approx(reference.cosine(A, B), abs=1e-9)


@pytest.mark.parametrize("forms", [("core", "core"), ("factor", "both"), ("both", "factor")])
def test_matrices_that_share_a_factor_are_no_special_case(forms):
    """As AGOP = Wᵀ S W and NFM = Wᵀ W do: the product W Wᵀ is formed once."""
    a, b = pair(forms, 9, (4, 4), seed=1)
    shared = a.factor
    b = Congruence(shared, b.core)
    assert Similarity().cosine(a, b) == pytest.approx(reference.cosine(a.dense(), b.dense()), abs=1e-12)


def test_entries_of_the_largest_magnitude_change_no_cosine():
    """The power of two above the largest float32 is infinite there, and the entries divided by it are 0."""
    a, b = torch.tensor([[1.0, 0.5], [0.5, 0.75]]), torch.eye(2)
    value = Similarity().cosine(Congruence(None, a * torch.finfo(torch.float32).max), Congruence(None, b))
    assert value == pytest.approx(reference.cosine(a, b), abs=1e-6)


def test_the_largest_float64_entries_leave_a_cosine_undefined():
    largest = Congruence(None, torch.eye(2, dtype=torch.float64) * torch.finfo(torch.float64).max)
    assert Similarity().cosine(largest, Congruence(None, torch.eye(2, dtype=torch.float64))) is None


@pytest.mark.parametrize("shape", [(1024, 300), (300, 1024)])
@pytest.mark.parametrize("scale", [1.0, 1e-8], ids=["scale 1", "scale 1e-8"])
@pytest.mark.parametrize("centre", ["none", "entry"])
def test_float32_is_within_1e_5_of_float64(shape, scale, centre):
    """At full width, also where the squares of the squares of the entries are below the smallest float32."""
    i, r = shape
    random = torch.Generator().manual_seed(2)
    W = torch.randn(r, i, generator=random) * scale
    K = torch.randn(2 * r, r, generator=random) @ torch.diag(torch.linspace(0.01, 1, r)) * scale
    agop, nfm = Congruence(W, K.T @ K), Congruence(W, None)
    exact = reference.cosine(agop.double().dense(), reference.nfm(W), centre=centre)
    value = Similarity(centre).cosine(agop, nfm)
    assert 0.1 < exact < 0.999
    assert value == pytest.approx(exact, abs=1e-5)


def test_entry_centring_keeps_its_digits_beside_a_large_mean():
    """Pearson's r of float32 matrices whose mean entry is 10⁴ times their spread."""
    A = 1e4 + torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    B = A + torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    A, B = A + A.T, B + B.T
    value = Similarity("entry").cosine(Congruence(None, A), Congruence(None, B))
    assert value == pytest.approx(reference.cosine(A, B, centre="entry"), abs=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("centre", ["none", "entry"])
def test_the_cosine_with_a_zero_matrix_is_undefined(form, centre):
    a, b = pair((form, "both"), 5, (3, 3), seed=0)
    zero = Congruence(*(part if part is None else torch.zeros_like(part) for part in (a.factor, a.core)))
    assert Similarity(centre).cosine(zero, b) is None
    assert Similarity(centre).cosine(b, zero) is None
    assert Similarity(centre).inner(zero, b) == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("centre", ["none", "entry"])
@pytest.mark.parametrize("entry", [math.nan, math.inf, -math.inf, 1e200])
def test_the_cosine_with_a_matrix_that_is_not_finite_is_undefined(form, centre, entry):
    """Neither nan nor, through a division by infinity, 0; 1e200 is a number, but its square is none."""
    a, b = pair((form, "both"), 5, (3, 3), seed=0)
    for part in ("factor", "core"):
        if getattr(a, part) is not None:
            bad = dataclasses.replace(a, **{part: spoilt(getattr(a, part), entry)})
            zero = Congruence(None, torch.zeros(5, 5, dtype=torch.float64))
            for other in (b, bad, zero):
                assert Similarity(centre).cosine(bad, other) is None
                assert Similarity(centre).cosine(other, bad) is None


def spoilt(part: torch.Tensor, entry: float) -> torch.Tensor:
    """With one other entry on the diagonal."""
    bad = part.clone()
    bad[1, 1] = entry
    return bad


def test_the_cosine_is_undefined_where_only_the_inner_product_overflows():
    """In float32 ‖A‖ and ‖B‖ are numbers here, and C F Eᵀ is none."""
    a = Congruence(torch.eye(2), 1e25 * torch.eye(2))
    b = Congruence(1e18 * torch.eye(2), torch.eye(2))
    assert math.isfinite(Similarity().inner(a, a))
    assert math.isfinite(Similarity().inner(b, b))
    assert Similarity().cosine(a, b) is None


def test_the_entry_centred_cosine_with_a_constant_matrix_is_undefined_though_the_cosine_is_not():
    for size in (3, 7, 50, 99):
        other = pair(("core", "core"), size, (1, 1), 0)[0]
        for value in (0.1, 0.3, 1e-9, 12345.6):
            constant = Congruence(torch.full((1, size), value, dtype=torch.float64), None)
            assert Similarity("entry").cosine(constant, other) is None
            assert Similarity("none").cosine(constant, other) is not None


class TestInvariances:
    def setup_method(self) -> None:
        self.a, self.b = pair(("both", "factor"), 8, (5, 6), seed=3)
        self.cosine = Similarity().cosine(self.a, self.b)

    def test_a_matrix_is_at_cosine_one_to_itself_under_either_convention(self):
        for centre in ("none", "entry"):
            assert Similarity(centre).cosine(self.a, self.a) == pytest.approx(1, abs=1e-12)

    @given(st.floats(-12, 12), st.floats(-12, 12))
    @settings(max_examples=10)
    def test_scaling_either_matrix_changes_nothing(self, first, second):
        scaled = [Congruence(m.factor * 10**power, m.core) for m, power in ((self.a, first), (self.b, second))]
        assert Similarity().cosine(*scaled) == pytest.approx(self.cosine, abs=1e-12)

    def test_rotating_the_input_space_of_both_changes_nothing(self):
        Q = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
        rotated = [Congruence(m.factor @ Q, m.core) for m in (self.a, self.b)]
        assert Similarity().cosine(*rotated) == pytest.approx(self.cosine, abs=1e-12)

    def test_rotating_the_input_space_of_one_changes_the_cosine(self):
        Q = torch.eye(8, dtype=torch.float64).roll(1, dims=0)
        assert abs(Similarity().cosine(Congruence(self.a.factor @ Q, self.a.core), self.b) - self.cosine) > 0.01

    def test_rotating_the_input_space_of_both_changes_the_entry_centred_cosine(self):
        Q = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
        rotated = [Congruence(m.factor @ Q, m.core) for m in (self.a, self.b)]
        assert abs(Similarity("entry").cosine(*rotated) - Similarity("entry").cosine(self.a, self.b)) > 1e-3

    def test_adding_the_identity_changes_the_cosine(self):
        identity = torch.eye(8, dtype=torch.float64)
        moved = [Congruence(None, m.dense() + m.dense().norm() * identity) for m in (self.a, self.b)]
        assert abs(Similarity().cosine(*moved) - self.cosine) > 0.01

    def test_adding_a_constant_to_every_entry_changes_the_cosine_but_not_pearsons(self):
        moved = [Congruence(None, m.dense() + 10) for m in (self.a, self.b)]
        assert abs(Similarity().cosine(*moved) - self.cosine) > 0.01
        pearson = Similarity("entry").cosine(self.a, self.b)
        assert Similarity("entry").cosine(*moved) == pytest.approx(pearson, abs=1e-10)

    def test_pearson_differs_from_the_cosine(self):
        assert abs(Similarity("entry").cosine(self.a, self.b) - self.cosine) > 0.01

    def test_the_square_root_differs_from_the_matrix(self):
        assert abs(Similarity().cosine(self.a.sqrt(), self.b) - self.cosine) > 0.01

    def test_positive_semidefinite_matrices_have_cosines_between_0_and_1(self):
        for seed in range(20):
            value = Similarity().cosine(*pair(("factor", "factor"), 6, (1, 1), seed))
            assert value is not None
            assert -1e-12 <= value <= 1 + 1e-12
            assert not math.isnan(value)


def test_products_are_remembered_for_the_matrices_they_belong_to():
    """Many matrices in one instance: a dropped matrix' id, reused by Python, must not find another's product."""
    similarity, b = Similarity(), pair(("factor", "factor"), 6, (3, 3), 0)[0]
    for seed in range(50):
        a = pair(("factor", "factor"), 6, (3, 3), seed + 1)[0]
        assert similarity.cosine(a, b) == pytest.approx(reference.cosine(a.dense(), b.dense()), abs=1e-12)
        del a
