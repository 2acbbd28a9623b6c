"""Congruence: every method equals the same thing done to the dense matrix, in float64 to 1e-12."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa import reference
from nfa.maths.congruence import Congruence

FORMS = ("factor", "core", "both")


def congruence(form: str, i: int, r: int, seed: int = 0) -> tuple[Congruence, torch.Tensor]:
    """A positive semidefinite FᵀCF of side `i` in one of its forms, and the dense matrix."""
    random = torch.Generator().manual_seed(seed)
    factor = torch.randn(r, i, generator=random, dtype=torch.float64)
    half = torch.randn(i if form == "core" else r, i if form == "core" else r, generator=random, dtype=torch.float64)
    core = half.T @ half
    if form == "core":
        return Congruence(None, core), core
    if form == "factor":
        return Congruence(factor, None), factor.T @ factor
    return Congruence(factor, core), factor.T @ core @ factor


shapes = st.tuples(st.sampled_from(FORMS), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))


@given(shapes)
@settings(max_examples=30)
def test_dense_sum_and_size_are_those_of_the_matrix(shape):
    matrix, dense = congruence(*shape)
    torch.testing.assert_close(matrix.dense(), dense, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(matrix.sum(), dense.sum(), rtol=1e-10, atol=1e-10)
    assert matrix.size == len(dense)


@given(shapes)
@settings(max_examples=30)
def test_sqrt_is_the_positive_root(shape):
    """To 1e-7 of the largest eigenvalue: rounding of ε in a zero eigenvalue is √ε in its root."""
    matrix, dense = congruence(*shape)
    root = matrix.sqrt().dense()
    scale = float(torch.linalg.matrix_norm(dense, ord=2)) ** 0.5
    torch.testing.assert_close(root, reference.square_root(dense), rtol=1e-7, atol=1e-7 * scale)
    torch.testing.assert_close(root @ root, dense, rtol=1e-10, atol=1e-10 * scale**2)
    assert float(torch.linalg.eigvalsh(root).min()) >= -1e-7 * scale


def test_sqrt_of_a_float32_matrix_is_taken_in_float64():
    matrix = Congruence(torch.randn(5, 4), None)
    assert matrix.sqrt().dense().dtype is torch.float64


@pytest.mark.parametrize("form", FORMS)
def test_double_is_the_same_matrix_in_float64(form):
    matrix, _ = congruence(form, 4, 3)
    parts = [part if part is None else part.float() for part in (matrix.factor, matrix.core)]
    single = Congruence(*parts)
    double = single.double()
    assert double.dense().dtype is torch.float64
    assert (double.factor is None, double.core is None) == (single.factor is None, single.core is None)
    torch.testing.assert_close(double.dense(), single.dense().double(), rtol=1e-5, atol=1e-5)


def test_neither_factor_nor_core_is_refused():
    with pytest.raises(ValueError, match="needs a factor or a core"):
        Congruence(None, None)
