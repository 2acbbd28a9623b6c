"""Gradients as factors, rows and numbers, and their inner products, against gradients written out by loops."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa.maths import gradient_inner_products
from nfa.maths.example_gradients import Dense, GradientFactors, Part, Piece, powers_of_two
from nfa.maths.gradient_inner_products import inner
from nfa.maths.gradient_parts import joined
from nfa.maths.lookup_gradients import Rows

GROUPS, ROWS, COLUMNS = 2, 6, 3  # of a table that is also a matrix, and a convolution's weight in two groups
KINDS = ["factors", "groups", "rows", "dense"]


def part(kind: str, n: int, s: int, seed: int) -> Part:
    """A random part of the gradient of one table [6 3], at s positions."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    if kind == "rows":
        return Rows(torch.randint(ROWS, (n, s), generator=random), draw(n, s, COLUMNS), ROWS)
    if kind == "dense":
        return Dense(draw(n, ROWS * COLUMNS))
    groups = GROUPS if kind == "groups" else 1
    return GradientFactors(draw(n, s, groups, ROWS // groups), draw(n, s, groups, COLUMNS))


def written_out(part: Part) -> Tensor:
    """γ [n P] by loops."""
    if isinstance(part, Dense):
        return part.values
    rows = []
    for a in range(len(part)):
        table = torch.zeros(ROWS, COLUMNS, dtype=torch.float64)
        if isinstance(part, Rows):
            for row, value in zip(part.index[a].tolist(), part.values[a], strict=True):
                table[row] += value
        else:
            for left, right in zip(part.left[a], part.right[a], strict=True):
                table += torch.cat([torch.outer(p, q) for p, q in zip(left, right, strict=True)])
        rows.append(table.flatten())
    return torch.stack(rows)


def summed(parts: Sequence[Part]) -> Tensor:
    return torch.stack([written_out(one) for one in parts]).sum(dim=0)


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12 * float(expected.abs().max()))


@st.composite
def parts(draw: Callable[..., Any], n: int) -> list[Part]:
    """One to four parts of a gradient, of any kinds and numbers of positions."""
    drawn = draw(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 4)), min_size=1, max_size=4))
    seed = draw(st.integers(0, 999))
    return [part(kind, n, s, seed + place) for place, (kind, s) in enumerate(drawn)]


two_sides = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(lambda sizes: st.tuples(*map(parts, sizes)))
some = st.integers(1, 4).flatmap(parts)


@given(two_sides)
@settings(max_examples=100)
def test_inner_products_of_any_mixture_of_parts_are_those_of_the_gradients(sides):
    """A table that is an embedding, a matrix and a convolution's weight at once has cross terms of all its uses."""
    a, b = sides
    assert_equal(inner(a, b), summed(a) @ summed(b).T)


@given(two_sides)
@settings(max_examples=50)
def test_few_numbers_at_a_time_give_the_same(sides):
    a, b = sides
    with pytest.MonkeyPatch.context() as patch:
        for entries in (1, 7, 40):
            patch.setattr(gradient_inner_products, "ENTRIES", entries)
            assert_equal(inner(a, b), summed(a) @ summed(b).T)


@given(some)
@settings(max_examples=50)
def test_joined_parts_are_the_same_sum_with_one_part_of_a_kind(found):
    together = joined(found)
    assert_equal(summed(together), summed(found))
    kinds = [(type(one), one.left.shape[2:] if isinstance(one, GradientFactors) else None) for one in together]
    assert len(set(kinds)) == len(kinds)


@given(some, st.integers(1, 600))
@settings(max_examples=50)
def test_what_parts_say_of_themselves_is_said_of_the_gradients(found, examples):
    """`dense`, `write`, `total`, `times`, `entries` and `paired`."""
    weights = torch.linspace(-1, 2, len(found[0]), dtype=torch.float64)
    for one in found:
        expected = written_out(one)
        assert len(one) == len(expected)
        assert_equal(one.dense().values, expected)
        assert_equal(one.total(weights), weights @ expected)
        assert_equal(written_out(one.times(weights)), weights[:, None] * expected)
        assert_equal((one.paired(examples) or one).dense().values, expected)
        assert one.entries == expected.shape[1]
        assert_equal(written(one, one.row), expected)


def written(one: Part, step: int) -> Tensor:
    """γ by `write`, in two pieces."""
    table = torch.full((len(one), one.entries), torch.nan, dtype=torch.float64)
    cut = one.entries // step // 2 * step
    one.write([Piece(table[:, part], part) for part in (slice(0, cut), slice(cut, one.entries))])
    return table


@pytest.mark.parametrize("kind", KINDS)
def test_largest_is_no_smaller_than_any_entry_of_one_position(kind):
    one = part(kind, n=3, s=1, seed=0)
    assert (one.largest() >= written_out(one).abs().amax(dim=1) * (1 - 1e-12)).all()


@pytest.mark.parametrize(("p", "q", "s", "examples", "kept"), [
    (50, 40, 1, 1, True),  # a vector each
    (50, 40, 1, 10**6, True),
    (50, 40, 4, 10**6, True),
    (50, 40, 5, 10**6, False),
    (50, 40, 5, 1, True),
    (3, 4, 5, 10**6, False),  # a matrix of 12 numbers instead of 5 positions
    (8, 9, 3, 10**6, False),
    (8, 9, 3, 1, True),  # making the matrices costs more than one pair of examples
])  # fmt: skip
def test_factors_are_multiplied_in_pairs_exactly_where_their_products_are_fewer(p, q, s, examples, kept):
    factors = GradientFactors(torch.ones(2, s, 1, p), torch.ones(2, s, 1, q))
    as_factors = examples**2 * s**2 * (p + q) / 2
    as_matrices = examples * s * p * q + examples**2 * p * q / 2
    assert (as_factors <= as_matrices) is kept
    assert (factors.paired(examples) is factors) is kept


def test_numbers_are_those_that_are_held_for_an_example():
    assert GradientFactors(torch.ones(2, 3, 1, 5), torch.ones(2, 3, 1, 7)).numbers == 3 * (5 + 7)
    assert Rows(torch.ones(2, 3, dtype=torch.long), torch.ones(2, 3, 5), 100).numbers == 3 * (5 + 1)
    assert Dense(torch.ones(2, 9)).numbers == 9


def test_a_view_stands_at_its_places_in_the_whole_parameter_and_repeated_places_add_up():
    values = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    found = Dense(values).within(torch.tensor([3, 0, 3]), 5)
    assert found.values.tolist() == [[2.0, 0.0, 0.0, 5.0, 0.0], [16.0, 0.0, 0.0, 40.0, 0.0]]


def test_one_position_is_the_product_of_two_gram_matrices():
    one = part("factors", n=4, s=1, seed=0)
    left, right = one.left[:, 0, 0], one.right[:, 0, 0]
    assert_equal(inner([one], [one]), (left @ left.T) * (right @ right.T))


def test_summing_positions_before_the_product_is_another_gradient():
    """(Σ_s δ_s)(Σ_s h_s)ᵀ has the terms of different positions, which γ = Σ_s δ_s h_sᵀ does not have."""
    one = part("factors", n=3, s=4, seed=0)
    pooled = GradientFactors(one.left.sum(dim=1, keepdim=True), one.right.sum(dim=1, keepdim=True))
    found, other = inner([one], [one]), inner([pooled], [pooled])
    assert float((found - other).abs().max()) > 0.1 * float(found.abs().max())


def test_uses_of_one_parameter_one_by_one_miss_their_cross_terms():
    a, b = part("factors", n=3, s=2, seed=0), part("rows", n=3, s=2, seed=1)
    whole, apart = inner([a, b], [a, b]), inner([a], [a]) + inner([b], [b])
    assert float((whole - apart).abs().max()) > 0.01 * float(whole.abs().max())


def test_factors_of_groups_are_not_those_of_one_group():
    one = part("groups", n=3, s=1, seed=0)
    mixed = GradientFactors(one.left.flatten(2).unsqueeze(2), one.right.flatten(2).unsqueeze(2))
    assert mixed.dense().values.shape[1] == GROUPS * ROWS * COLUMNS
    assert not torch.allclose(inner([one], [one]), inner([mixed], [mixed]))


@pytest.mark.parametrize(("delta", "h"), [(1e-30, 1.0), (1.0, 1e-30), (1e30, 1e-25), (1e-35, 1e30), (1e-20, 1e-10)])
def test_factors_of_any_size_are_scaled_so_that_float32_holds_their_products(delta, h):
    one = part("factors", n=3, s=2, seed=0)
    small = GradientFactors((one.left * delta).float(), (one.right * h).float())
    more = powers_of_two(small.largest())
    scaled = small.times(1 / more)
    found = more.double()[:, None] * inner([scaled], [scaled]).double() * more.double()
    expected = inner([one], [one]) * (delta * h) ** 2
    assert_close_in_float32 = {"rtol": 1e-5, "atol": 1e-6 * float(expected.max())}
    torch.testing.assert_close(found, expected, **assert_close_in_float32)


def test_powers_of_two_are_at_most_the_values_and_more_than_half_of_them():
    values = torch.tensor([1e-37, 0.7, 1.0, 1.9, 3e38, 0.0])
    found = powers_of_two(values)
    assert found[-1] == 1
    assert ((found <= values) & (values < 2 * found))[:4].all()
    assert found[:-1].log2().frac().abs().max() == 0
