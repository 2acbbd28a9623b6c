"""Matrices of single examples, stored as rows, against the same matrices written out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa.maths import example_matrices
from nfa.maths.congruence import Congruence
from nfa.maths.example_matrices import OuterProducts, PairedProducts
from nfa.maths.similarity import Similarity
from tests.support.rotations import gaussian

FORMS = ("identity", "factor")
small = st.integers(1, 5)
centres = st.sampled_from(["none", "entry"])
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def outer_products(form: str, m: int, s: int, r: int, i: int, seed: int, R: int = 0) -> OuterProducts:
    """Of i features; through a factor [r, i], or directly."""
    factor = gaussian(r, i, seed=seed) if form == "factor" else None
    width = i if factor is None else r
    rows = gaussian(m, *([R] if R else []), s, width, seed=seed + 1)
    return OuterProducts(rows, factor, torch.arange(m))


def paired_products(m: int, s: int, o: int, i: int, seed: int) -> PairedProducts:
    gradients, inputs = gaussian(m, s, o, seed=seed), gaussian(m, s, i, seed=seed + 1)
    return PairedProducts(gradients, inputs, gaussian(o, i, seed=seed + 2), torch.arange(m))


def dense(examples: OuterProducts | PairedProducts, centre: str = "none") -> Tensor:
    """a_n [m, ..., i, i], without its mean entry where entries are centred."""
    if isinstance(examples, OuterProducts):
        pulled = examples.rows if examples.factor is None else examples.rows @ examples.factor
        made = torch.einsum("...sa,...sb->...ab", pulled, pulled)
    else:
        half = -torch.einsum("nsa,nsb->nab", examples.gradients @ examples.weight, examples.inputs)
        made = (half + half.mT) / 2
    return made - made.mean(dim=(-2, -1), keepdim=True) if centre == "entry" else made


def matrix(form: str, i: int, seed: int, centre: str) -> tuple[Congruence, Tensor]:
    """A symmetric matrix, and its dense form, which is centred if `centre` says so."""
    half, core = gaussian(3, i, seed=seed), gaussian(3, 3, seed=seed + 1)
    B = {
        "dense": Congruence(None, half.T @ half),
        "factor": Congruence(half, None),
        "both": Congruence(half, core + core.T),
    }[form]
    full = B.dense()
    return B, full - full.mean() if centre == "entry" else full


@given(
    st.sampled_from(FORMS), small, st.integers(1, 3), small, small, st.integers(0, 99), centres, st.integers(0, 3),
    st.sampled_from(["dense", "factor", "both"]),
)  # fmt: skip
@settings(max_examples=60)
def test_products_of_outer_products_with_a_matrix(form, m, s, r, i, seed, centre, R, other):
    examples, (B, full) = outer_products(form, m, s, r, i, seed, R), matrix(other, i, seed + 5, centre)
    expected = (dense(examples) * full).sum(dim=(-2, -1))
    torch.testing.assert_close(examples.along(B, Similarity(centre)), expected, **CLOSE)


@given(st.sampled_from(FORMS), st.sampled_from(FORMS), small, st.integers(1, 3), small, small, centres)
@settings(max_examples=40)
def test_products_of_outer_products_with_each_other(first, second, m, s, r, i, centre):
    """Of the same examples, and of all pairs; the two sides may have different numbers of positions and factors."""
    a, b = outer_products(first, m, s, r, i, 0), outer_products(second, m, s + 1, r + 1, i, 50)
    A, B, similarity = dense(a, centre), dense(b, centre), Similarity(centre)
    every = torch.einsum("nab,kab->nk", A, B)
    torch.testing.assert_close(a.every(b, similarity), every, **CLOSE)
    torch.testing.assert_close(a.each(b, similarity), every.diagonal(), **CLOSE)
    torch.testing.assert_close(a.each(a, similarity), A.square().sum(dim=(1, 2)), **CLOSE)


@given(small, st.integers(1, 3), small, small, st.integers(0, 99), centres, st.sampled_from(["dense", "both"]))
@settings(max_examples=40)
def test_products_of_paired_products(m, s, o, i, seed, centre, form):
    examples, (B, full) = paired_products(m, s, o, i, seed), matrix(form, i, seed + 5, centre)
    A, similarity = dense(examples, centre), Similarity(centre)
    torch.testing.assert_close(examples.along(B, similarity), (A * full).sum(dim=(1, 2)), **CLOSE)
    every = torch.einsum("nab,kab->nk", A, A)
    torch.testing.assert_close(examples.every(examples, similarity), every, **CLOSE)
    torch.testing.assert_close(examples.each(examples, similarity), every.diagonal(), **CLOSE)


def test_padding_adds_nothing():
    outer, pairs = outer_products("factor", 3, 2, 4, 5, 0), paired_products(3, 2, 4, 5, 0)

    def padded(rows: Tensor) -> Tensor:
        return torch.nn.functional.pad(rows, (0, 0, 0, 3))

    longer = OuterProducts(padded(outer.rows), outer.factor, outer.numbers)
    longer_pairs = PairedProducts(padded(pairs.gradients), padded(pairs.inputs), pairs.weight, pairs.numbers)
    for centre in ("none", "entry"):
        for short, long in ((outer, longer), (pairs, longer_pairs)):
            every, expected = (one.every(one, Similarity(centre)) for one in (long, short))
            torch.testing.assert_close(every, expected, **CLOSE)
            B = matrix("both", 5, 3, centre)[0]
            torch.testing.assert_close(long.along(B, Similarity(centre)), short.along(B, Similarity(centre)), **CLOSE)


def test_centring_entries_changes_products():
    examples, (B, _) = outer_products("factor", 3, 2, 4, 5, 0), matrix("both", 5, 3, "none")
    assert not torch.allclose(examples.along(B, Similarity()), examples.along(B, Similarity("entry")))


@pytest.mark.parametrize(
    "make", [lambda: outer_products("factor", 6, 2, 4, 5, 0), lambda: paired_products(6, 2, 4, 5, 0)]
)
def test_some_of_the_examples_are_those_with_their_numbers(make):
    examples = make()
    chosen = examples.of(torch.tensor([1, 4, 5]))
    assert chosen.numbers.tolist() == [1, 4, 5]
    torch.testing.assert_close(dense(chosen), dense(examples)[[1, 4, 5]])
    assert examples.of(examples.numbers) is examples


def test_independent_estimates_come_one_by_one():
    examples = outer_products("factor", 4, 2, 3, 5, 0, R=3)
    parts = examples.estimates()
    torch.testing.assert_close(torch.stack([dense(part) for part in parts], dim=1), dense(examples))
    (only,) = outer_products("factor", 4, 2, 3, 5, 0).estimates()
    assert only.rows.ndim == 3
    assert len(paired_products(2, 1, 2, 2, 0).estimates()) == 1


def test_float32_rows_give_float64_products_close_to_exact_ones():
    exact = outer_products("factor", 20, 3, 30, 40, 0)
    single = OuterProducts(exact.rows.float(), exact.factor.float(), exact.numbers)
    B = Congruence(exact.factor, None)
    found = single.along(Congruence(single.factor, None), Similarity())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, exact.along(B, Similarity()), rtol=1e-5, atol=0)
    torch.testing.assert_close(
        single.every(single, Similarity()), exact.every(exact, Similarity()), rtol=1e-5, atol=1e-2
    )


@pytest.mark.parametrize("scale", [2.0**-55, 2.0**55], ids=["small", "large"])
def test_the_scale_of_float32_rows_does_not_change_their_products(scale):
    """A row times the mean of outer products of such rows is of the third power, which float32 does not hold."""
    rows = outer_products("factor", 20, 3, 30, 40, 0).rows.float()
    mean = torch.einsum("nsa,nsb->ab", rows, rows)

    def along(by: float) -> Tensor:
        examples = OuterProducts(rows * by, None, torch.arange(20))
        return examples.along(Congruence(None, mean * by**2), Similarity()) / by**4

    torch.testing.assert_close(along(scale), along(1.0), rtol=1e-6, atol=0)


def test_what_is_not_finite_stays_visible():
    examples = outer_products("factor", 4, 2, 3, 5, 0)
    examples.rows[2, 0, 1] = math.nan
    assert examples.along(matrix("both", 5, 3, "none")[0], Similarity()).isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize("forms", [("identity", "factor"), ("factor", "factor"), ("identity", "identity")])
@pytest.mark.parametrize("centre", ["none", "entry"])
def test_products_of_many_rows_are_those_of_few(
    forms: tuple[str, str], centre: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    i = 4 if "factor" in forms and "identity" in forms else 3
    a, b = outer_products(forms[0], 5, 9, 3, i, 0), outer_products(forms[1], 5, 7, 3, i, 1)
    similarity, chosen = Similarity(centre), torch.tensor([1, 3, 4])
    few = [a.each(b, similarity), a.every(b, similarity), a.every(b, similarity, chosen)]
    monkeypatch.setattr(example_matrices, "MANY", 0)
    many = [a.each(b, similarity), a.every(b, similarity), a.every(b, similarity, chosen)]
    for one, other in zip(few, many, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
    assert not all(map(torch.equal, few, many)), "there is only one way"


def test_ten_thousand_rows_of_an_example_need_no_product_of_all_pairs_of_rows() -> None:
    """Those of images with 1,024 positions and ten outputs; the products would take 26 GB."""
    rows = torch.ones(1, 1, 2).expand(32, 10_240, 2)
    examples = OuterProducts(rows, None, torch.arange(32))
    expected = torch.full((32, 32), 4.0 * 10_240**2, dtype=torch.float64)
    assert torch.equal(examples.each(examples, Similarity()), expected.diagonal())
    assert torch.equal(examples.every(examples, Similarity()), expected)
