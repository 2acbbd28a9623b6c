"""The debiased cosine and its standard error against their formulas, written out on dense matrices."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.maths.congruence import Congruence
from nfa.maths.replicates import Replicates
from nfa.maths.similarity import Similarity


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def replicates_of(rows: Tensor, factor: Tensor | None, sampled: int | None = None) -> Replicates:
    """From rows x [n R s r] of all examples, of which the first `sampled` are kept."""
    cores = torch.einsum("nrsa,nrsb->rab", rows, rows) / len(rows)
    return Replicates(factor, list(cores), rows[:sampled], len(rows))


def dense(rows: Tensor, factor: Tensor | None) -> Tensor:
    """Each example's part A_nr [n R i i] of each estimate."""
    pulled = rows if factor is None else rows @ factor
    return torch.einsum("nrsa,nrsb->nrab", pulled, pulled)


def other_of(form: str, i: int, seed: int) -> Congruence:
    half = normal(i, i, seed=seed)
    core = normal(3, 3, seed=seed + 1)
    return {
        "dense": Congruence(None, half.T @ half),
        "factor": Congruence(half[:2], None),
        "both": Congruence(normal(3, i, seed=seed + 2), core + core.T),
    }[form]


def centred(A: Tensor, centre: str) -> Tensor:
    return A - A.mean(dim=(-2, -1), keepdim=True) if centre == "entry" else A


small = st.integers(2, 5)
cases = given(
    n=st.integers(1, 6),
    R=st.integers(2, 4),
    s=st.integers(1, 3),
    r=small,
    i=small,
    factored=st.booleans(),
    form=st.sampled_from(["dense", "factor", "both"]),
    centre=st.sampled_from(["none", "entry"]),
    seed=st.integers(0, 999),
)


def drawn(n, R, s, r, i, factored, form, centre, seed):
    factor = normal(r, i, seed=seed) if factored else None
    rows = normal(n, R, s, r if factored else i, seed=seed + 1)
    return rows, factor, other_of(form, i, seed + 2), Similarity(centre)


@cases
@settings(max_examples=60)
def test_mean_norm_and_cosine_equal_the_reference(**case):
    rows, factor, other, similarity = drawn(**case)
    found, parts = replicates_of(rows, factor), dense(rows, factor).mean(dim=0)
    torch.testing.assert_close(found.mean.dense(), parts.mean(dim=0), rtol=1e-12, atol=1e-12)
    A, M = centred(parts, case["centre"]), centred(other.dense(), case["centre"])
    products = torch.einsum("rab,qab->rq", A, A)
    R = case["R"]
    expected = float((products.sum() - products.trace()) / (R * (R - 1)))
    assert found.squared_norm(similarity) == pytest.approx(expected, rel=1e-9, abs=1e-9 * float(products.abs().max()))
    assume(abs(expected) > 1e-6 * float(products.abs().max()))
    estimate = found.cosine(other, similarity)
    if expected < 0:
        assert estimate is None
    else:
        assert estimate.value == pytest.approx(reference.debiased_cosine(A, M), rel=1e-9, abs=1e-9)


@cases
@settings(max_examples=60)
def test_the_standard_error_is_that_of_the_linearised_cosine(**case):
    """√(mean_n Var_r⟨A_nr, D⟩ / (R n)), D the derivative of ⟨Ā, M⟩ / (‖M‖ √ρ) along Ā, where ρ moves by 2⟨Ā, dĀ⟩."""
    rows, factor, other, similarity = drawn(**case)
    found = replicates_of(rows, factor)
    estimate, squared = found.cosine(other, similarity), found.squared_norm(similarity)
    parts = dense(rows, factor)
    assume(estimate is not None and squared > 1e-3 * float(parts.mean(dim=0).square().sum()))
    mean, M = centred(parts.mean(dim=(0, 1)), case["centre"]), centred(other.dense(), case["centre"])
    D = M / M.norm() / math.sqrt(squared) - estimate.value * mean / squared
    along = (parts * D).sum(dim=(2, 3))
    expected = math.sqrt(float(along.var(dim=1, correction=1).mean()) / case["R"] / case["n"])
    assert estimate.se == pytest.approx(expected, rel=1e-8, abs=1e-9)


def pair(*diagonals: list[float], centre: str = "none") -> tuple[Replicates, Similarity]:
    """Estimates with the given diagonals, from one example whose rows they are."""
    rows = torch.stack([torch.diag(torch.tensor(d, dtype=torch.float64).sqrt()) for d in diagonals])[None]
    return replicates_of(rows, None), Similarity(centre)


IDENTITY = Congruence(None, torch.eye(2, dtype=torch.float64))


def test_a_value_above_one_is_not_clipped():
    """⟨A₁, A₂⟩ = 2·2·0.5 = 2 where ‖Ā‖² is 3.125: with M = Ā the cosine is √(3.125/2)."""
    found, similarity = pair([2.0, 0.5], [0.5, 2.0])
    value = found.cosine(found.mean, similarity).value
    assert value == pytest.approx(math.sqrt(3.125 / 2), rel=1e-12)
    assert value > 1.2


@pytest.mark.parametrize(
    ("diagonals", "centre"),
    [
        (([1.0, 0.0], [0.0, 1.0]), "none"),
        (([0.0, 0.0], [0.0, 0.0]), "none"),
        (([1.0, 0.0], [0.0, 1.0]), "entry"),
    ],
    ids=["estimates without overlap", "zero estimates", "a negative squared norm"],
)
def test_without_a_positive_norm_there_is_no_cosine(diagonals, centre):
    found, similarity = pair(*diagonals, centre=centre)
    assert found.squared_norm(similarity) <= 0
    assert found.cosine(IDENTITY, similarity) is None


@pytest.mark.parametrize("centre", ["none", "entry"])
def test_the_cosine_with_a_zero_matrix_is_undefined(centre):
    found, similarity = pair([1.0, 2.0], [1.0, 2.0], centre=centre)
    assert found.cosine(IDENTITY, similarity) is not None
    assert found.cosine(Congruence(None, torch.zeros(2, 2, dtype=torch.float64)), similarity) is None


@pytest.mark.parametrize("entry", [math.nan, math.inf, 1e200])
@pytest.mark.parametrize("centre", ["none", "entry"])
@pytest.mark.parametrize("factored", [True, False])
def test_the_cosine_is_undefined_where_something_is_not_finite(entry, centre, factored):
    rows, factor, similarity = normal(4, 2, 1, 3, seed=0), normal(3, 3, seed=1), Similarity(centre)
    other, zero = other_of("dense", 3, 2), Congruence(None, torch.zeros(3, 3, dtype=torch.float64))
    bad_rows, bad_core = rows.clone(), other.core.clone()
    bad_rows[1, 0, 0, 1], bad_core[1, 1] = entry, entry
    bad, factor = Congruence(None, bad_core), factor if factored else None
    for found, against in ((rows, bad), (bad_rows, other), (bad_rows, bad), (bad_rows, zero)):
        assert replicates_of(found, factor).cosine(against, similarity) is None


def test_rows_times_their_core_may_be_larger_than_any_number():
    """Float32 rows of 1e13 have cores of 1e26; rows times such a core would be 1e39."""
    rows, other = normal(4, 2, 1, 3, seed=0).float(), Congruence(None, other_of("dense", 3, 2).core.float())
    expected, found = (replicates_of(size * rows, None).cosine(other, Similarity()) for size in (1, 1e13))
    assert (found.value, found.se) == pytest.approx((expected.value, expected.se), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-50, 1e50])
def test_norms_whose_product_is_no_number_have_a_cosine_and_an_error(scale):
    """‖A‖² ‖M‖² is 1e±400."""
    rows, other = normal(5, 3, 1, 4, seed=0), other_of("dense", 4, 1)
    expected = replicates_of(rows, None).cosine(other, Similarity())
    scaled = replicates_of(scale * rows, None).cosine(Congruence(None, scale**2 * other.core), Similarity())
    assert (scaled.value, scaled.se) == pytest.approx((expected.value, expected.se), rel=1e-9)


def test_estimates_that_agree_have_no_error():
    found, similarity = pair([1.0, 2.0], [1.0, 2.0])
    estimate = found.cosine(IDENTITY, similarity)
    assert estimate.value == pytest.approx(3 / math.sqrt(2) / math.sqrt(5), rel=1e-12)
    assert estimate.se == pytest.approx(0, abs=1e-9)


def test_one_estimate_is_refused():
    with pytest.raises(ValueError, match="two or more are needed"):
        replicates_of(normal(3, 1, 1, 4, seed=0), None)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 99))
@settings(max_examples=20)
def test_neither_value_nor_error_depends_on_scales_or_on_the_order_of_estimates(a, b, seed):
    rows, factor = normal(5, 3, 2, 4, seed=seed), normal(4, 6, seed=seed)
    other = other_of("dense", 6, seed)
    scaled = Congruence(None, b * other.dense())
    found = replicates_of(rows, factor).cosine(other, Similarity())
    moved = replicates_of(a * rows[:, [2, 0, 1]], factor).cosine(scaled, Similarity())
    assume(found is not None)
    assert moved.value == pytest.approx(found.value, rel=1e-9)
    assert moved.se == pytest.approx(found.se, rel=1e-6)


def test_more_examples_and_more_directions_mean_less_error():
    """By √(2·2) for four times as many rows that are alike in distribution; ±10 %."""
    other = other_of("dense", 6, 3)
    few, many = (replicates_of(normal(n, R, 1, 6, seed=1), None) for n, R in ((500, 2), (1000, 4)))
    ratio = few.cosine(other, Similarity()).se / many.cosine(other, Similarity()).se
    assert ratio == pytest.approx(2, rel=0.1)


def test_a_sample_of_the_examples_tells_about_the_same_error():
    """256 of 1,000: within 20 %; and the value does not depend on it."""
    other, rows = other_of("dense", 6, 3), normal(1000, 2, 1, 6, seed=2)
    whole, sampled = (replicates_of(rows, None, kept).cosine(other, Similarity()) for kept in (None, 256))
    assert sampled.value == whole.value
    assert sampled.se == pytest.approx(whole.se, rel=0.2)
    assert sampled.se != whole.se


def test_float32_is_within_1e_5_of_float64():
    rows, factor = normal(200, 2, 1, 20, seed=4), normal(20, 30, seed=5)
    other = other_of("factor", 30, 6)
    exact = replicates_of(rows, factor).cosine(other, Similarity())
    single = replicates_of(rows.float(), factor.float()).cosine(Congruence(other.factor.float(), None), Similarity())
    assert single.value == pytest.approx(exact.value, abs=1e-5)
    assert single.se == pytest.approx(exact.se, rel=1e-4)


def test_nothing_is_edited():
    rows, factor, other = normal(4, 2, 1, 3, seed=0), normal(3, 5, seed=1), other_of("both", 5, 2)
    found = replicates_of(rows, factor)
    kept = [tensor.clone() for tensor in (*found.cores, found.sample, factor, other.factor, other.core)]
    for centre in ("none", "entry"):
        found.cosine(other, Similarity(centre))
    for tensor, before in zip((*found.cores, found.sample, factor, other.factor, other.core), kept, strict=True):
        assert torch.equal(tensor, before)
