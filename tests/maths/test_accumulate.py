"""add_gram and symmetric equal rowsᵀ rows, around the width of a strip and for every stride."""

import pytest
import torch

from nfa.maths import accumulate
from nfa.maths.accumulate import add_gram, add_product, symmetric
from nfa.maths.bfloat16 import bfloat16_products


def rows(m: int, o: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(m, o, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("o", [1, 255, 256, 257, 511, 512, 513, 600])
@pytest.mark.parametrize("m", [1, 9])
def test_equals_the_product(m, o):
    total, first, second = torch.zeros(o, o, dtype=torch.float64), rows(m, o), rows(m + 2, o, seed=1)
    add_gram(total, first)
    add_gram(total, second)
    expected = first.T @ first + second.T @ second
    torch.testing.assert_close(symmetric(total), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("o", [3, 257])
def test_strided_rows_give_the_same(o):
    wide = rows(8, 2 * o)
    for strided in (wide[:, ::2], wide[::2, :o], rows(o, 8).T, wide[:1, :o].expand(5, o)):
        total = torch.zeros(strided.shape[1], strided.shape[1], dtype=torch.float64)
        add_gram(total, strided)
        torch.testing.assert_close(symmetric(total), strided.T @ strided, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("turned", [False, True])
def test_a_large_total_in_float32_is_good_to_1e_6(turned):
    given = rows(300, 900).T.contiguous().T if turned else rows(300, 900)
    total, expected = torch.zeros(900, 900), given.T @ given
    add_gram(total, given.float())
    assert (symmetric(total).double() - expected).norm() < 1e-6 * expected.norm()


def test_operands_of_a_large_total_are_rounded_where_products_are():
    given, rounded = torch.zeros(300, 300), torch.zeros(300, 300)
    x = rows(5, 300).float()
    with bfloat16_products():
        add_gram(given, x)
    add_gram(rounded, x.bfloat16().float())
    torch.testing.assert_close(symmetric(given), symmetric(rounded), rtol=1e-5, atol=1e-5)
    assert (symmetric(given) - x.T @ x).norm() > 1e-4 * (x.T @ x).norm()


def test_rows_are_not_edited_and_the_result_is_exactly_symmetric():
    total, given = torch.zeros(300, 300), rows(20, 300).float()
    kept = given.clone()
    add_gram(total, given)
    assert torch.equal(given, kept)
    assert torch.equal(symmetric(total), symmetric(total).T)


def test_reading_leaves_the_sum_as_it_was():
    total = torch.zeros(4, 4, dtype=torch.float64)
    add_gram(total, rows(3, 4))
    kept = total.clone()
    symmetric(total)
    assert torch.equal(total, kept)


def test_no_rows_add_nothing():
    total = torch.zeros(4, 4)
    add_gram(total, torch.zeros(0, 4))
    assert torch.equal(symmetric(total), torch.zeros(4, 4))


@pytest.mark.parametrize("m", [1023, 1024, 5000])
@pytest.mark.parametrize(("o", "i"), [(3, 3), (2, 40), (40, 2), (20, 30)])
def test_a_product_is_the_same_in_blocks_and_at_once(m, o, i):
    total, x, y = torch.ones(o, i, dtype=torch.float64), rows(m, o), rows(m, i, seed=1)
    add_product(total, x, y)
    torch.testing.assert_close(total, 1 + x.T @ y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("at_once", [150_000, 300])
@pytest.mark.parametrize("o", [1, 2, 8, 12, 40])
def test_sums_over_many_rows_keep_their_digits_in_float32_however_narrow_they_are(o, at_once):
    """Rows of a mean that is not 0, whose sums grow with every row."""
    many = rows(150_000, o).float() + 1
    total = torch.zeros(o, o)
    for part in many.split(at_once):
        add_gram(total, part)
    expected = many.double().T @ many.double()
    assert (symmetric(total) - expected).norm() <= 1e-6 * expected.norm()


def test_blas_has_no_part_in_sums_of_several_threads_whose_own_would_wait_for_those_of_pytorch(monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(accumulate, "_add_triangle", lambda turned, _: calls.append(len(turned)))
    values, before = torch.randn(20, 300), torch.get_num_threads()
    total = torch.zeros(300, 300)
    try:
        torch.set_num_threads(2)
        add_gram(total, values)
        torch.set_num_threads(1)
        add_gram(torch.zeros(300, 300), values)
    finally:
        torch.set_num_threads(before)
    assert calls == [300]
    torch.testing.assert_close(symmetric(total), values.T @ values)
