"""The share of a matrix in known features: what is planted has all of it, a random matrix has what chance gives."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.maths.known_features import KnownFeatures, Subspace, SumModulo

SEEDS = st.integers(0, 2**31)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(seed: int, size: int, rank: int = 3) -> Tensor:
    factor = normal(seed, rank, size)
    return factor.T @ factor


def value(known: KnownFeatures, matrix: Tensor) -> float:
    share = known.share(matrix)
    assert share
    return share.value


def of_sums(seed: int, p: int) -> Tensor:
    """AGOP of a function of a + b over all pairs: the gradient at (a + s, b − s) is that at (a, b), moved along."""
    at_zero = normal(seed, p, 2 * p)  # at (0, c) for every sum c
    moved = [torch.cat([row[:p].roll(s), row[p:].roll(-s)]) for row in at_zero for s in range(p)]
    J = torch.stack(moved)
    return J.T @ J


# ---- a subspace


@given(SEEDS, st.integers(1, 7), st.integers(1, 8))
def test_the_share_of_a_subspace_equals_the_reference_whatever_spans_it(seed: int, k: int, rank: int) -> None:
    matrix, directions = positive(seed, 7, rank), normal(seed + 1, k, 7)
    found = value(Subspace(directions), matrix)
    assert found == pytest.approx(reference.share_of_subspace(matrix, directions), abs=1e-9)
    assert found == pytest.approx(value(Subspace(normal(seed + 2, k, k) @ directions), 5 * matrix), abs=1e-6)


def test_a_matrix_inside_the_subspace_has_all_of_it_and_one_beside_it_nothing() -> None:
    directions = torch.linalg.qr(normal(0, 6, 6)).Q
    inside, beside = directions[:2], directions[2:]
    assert value(Subspace(inside), inside.T @ positive(1, 2) @ inside) == pytest.approx(1)
    assert value(Subspace(inside), beside.T @ positive(1, 4) @ beside) == pytest.approx(0, abs=1e-12)


def test_the_chance_of_a_subspace_is_the_mean_over_random_rotations() -> None:
    matrix, known = positive(0, 8), Subspace(torch.eye(8)[:3])
    rotations = [torch.linalg.qr(normal(seed, 8, 8)).Q for seed in range(2000)]
    mean = sum(value(known, Q @ matrix @ Q.T) for Q in rotations) / len(rotations)
    share = known.share(matrix)
    assert share
    assert share.chance == 3 / 8
    assert mean == pytest.approx(share.chance, abs=0.01)


@pytest.mark.parametrize("directions", [torch.zeros(1, 4), torch.ones(2, 4), torch.zeros(0, 4), torch.ones(5, 4)])
def test_directions_that_do_not_span_as_many_dimensions_are_an_error(directions: Tensor) -> None:
    with pytest.raises(ValueError, match="directions that do not span"):
        Subspace(directions)


# ---- sums


@given(SEEDS, st.integers(4, 9), st.integers(1, 6))
def test_the_share_of_sums_equals_the_reference(seed: int, p: int, rank: int) -> None:
    matrix = positive(seed, 2 * p, rank)
    found = value(SumModulo(p), matrix)
    assert found == pytest.approx(reference.share_of_sums(matrix, p), abs=1e-9)
    assert found == pytest.approx(value(SumModulo(p), 7 * matrix), abs=1e-9)


@pytest.mark.parametrize("p", [5, 6, 11])
def test_a_function_of_the_sum_has_all_of_its_agop_there(p: int) -> None:
    assert value(SumModulo(p), of_sums(0, p)) == pytest.approx(1)


@pytest.mark.parametrize("p", [5, 11])
def test_a_function_of_the_difference_and_sums_under_other_names_have_not(p: int) -> None:
    mirrored = torch.cat([torch.arange(p), p + (-torch.arange(p)) % p])  # b → −b
    others = torch.cat([torch.randperm(p, generator=torch.Generator().manual_seed(1)), p + torch.arange(p)])
    for order in (mirrored, others):
        assert value(SumModulo(p), of_sums(0, p)[order][:, order]) < 0.9


@pytest.mark.parametrize("p", [5, 6, 9])
def test_the_chance_of_sums_is_the_mean_over_entries_in_random_places(p: int) -> None:
    matrix, known = positive(2, 2 * p), SumModulo(p)
    above = torch.triu_indices(p, p, 1).unbind()
    random = torch.Generator().manual_seed(0)

    def permuted() -> Tensor:
        found = matrix.clone()
        for start in (0, p):
            block = found[start : start + p, start : start + p]
            block[above] = block[above][torch.randperm(len(above[0]), generator=random)]
        cross = found[:p, p:].flatten()[torch.randperm(p * p, generator=random)].view(p, p)
        found[:p, p:] = cross
        return found

    mean = sum(value(known, permuted()) for _ in range(2000)) / 2000
    share = known.share(matrix)
    assert share
    assert mean == pytest.approx(share.chance, abs=0.01)


def test_with_equal_norms_the_chance_is_about_one_over_the_modulus() -> None:
    share = SumModulo(31).share(positive(0, 62, 500))
    assert share
    assert share.chance == pytest.approx(1 / 31, abs=0.002)
    assert share.value == pytest.approx(share.chance, abs=0.02)


def test_what_does_not_depend_on_the_diagonals_and_the_means_of_blocks_leaves_them_out() -> None:
    matrix, p = positive(3, 10), 5
    changed = matrix + torch.diag(torch.arange(10.0))
    for rows in (slice(0, p), slice(p, None)):
        for columns in (slice(0, p), slice(p, None)):
            changed[rows, columns] += 3
    assert value(SumModulo(p), changed) == pytest.approx(value(SumModulo(p), matrix))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("known", [Subspace(torch.eye(10)[:2]), SumModulo(5)])
def test_of_a_matrix_that_is_zero_or_not_finite_there_is_no_share(known: KnownFeatures, dtype: torch.dtype) -> None:
    assert known.share(torch.zeros(10, 10, dtype=dtype)) is None
    for bad in (torch.nan, torch.inf):
        assert known.share(torch.eye(10, dtype=dtype).index_fill(1, torch.tensor([3]), bad)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_blocks_that_are_constant_beside_their_diagonals_there_is_no_share_of_sums(dtype: torch.dtype) -> None:
    assert SumModulo(5).share(torch.eye(10, dtype=dtype) + 0.1) is None


def test_a_modulus_that_makes_every_block_circulant_is_an_error() -> None:
    with pytest.raises(ValueError, match="below 4"):
        SumModulo(3)
