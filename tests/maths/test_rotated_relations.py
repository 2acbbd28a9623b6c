"""Overlaps, exponents, roots and centred entries over rotations, against the same rotations written out densely."""

import math

import pytest
import torch
from torch import Tensor

from nfa import reference
from nfa.maths.haar import haar_rows
from nfa.maths.rotated_relations import Other, cosines, exponents, overlaps, paired, rotated, rotations, square_roots
from tests.support.rotations import gaussian, positive

SHAPES = [(4, 6), (6, 4), (5, 5), (3, 1)]
CLOSE = 1e-9


class Weights:
    """W = UΣVᵀ, S, and ten rotations Q."""

    def __init__(self, o: int, i: int, rank: int | None = None) -> None:
        self.W = gaussian(o, rank or i) @ gaussian(rank, i, seed=1) if rank else gaussian(o, i)
        U, values, V = torch.linalg.svd(self.W, full_matrices=False)
        kept = values > 1e-9 * values.max()
        self.U, self.values, self.V = U[:, kept], values[kept].square(), V[kept].T
        self.S = positive(o, max(1, o - 1), seed=2)
        self.Q = next(iter(haar_rows(o, o, 0, draws=10)))
        self.rows = self.U.T @ self.Q

    @property
    def inside(self) -> Tensor:
        """ΣXΣ."""
        return rotated(self.rows, self.S, self.values)

    def dense(self) -> list[Tensor]:
        """Wᵀ Q S Qᵀ W."""
        return [self.W.T @ Q @ self.S @ Q.T @ self.W for Q in self.Q]

    def other(self, B: Tensor, k: int, *, centred: bool = False) -> Other:
        vectors = torch.linalg.eigh(B)
        leading = vectors.eigenvectors[:, vectors.eigenvalues.abs().argsort(descending=True)[:k]]
        squared = float((B - B.mean() * centred).square().sum())
        ones = self.V.sum(dim=0)
        return Other(self.V.T @ B @ self.V, self.V.T @ leading, squared, float(B.mean()), ones, len(B))


@pytest.mark.parametrize("shape", SHAPES)
def test_rotated_matrices_are_those_of_the_dense_formula(shape):
    weights = Weights(*shape)
    for inside, dense in zip(weights.inside, weights.dense(), strict=True):
        torch.testing.assert_close(weights.V @ inside @ weights.V.T, dense, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize(("shape", "centred"), [*((shape, False) for shape in SHAPES), ((4, 6), True), ((6, 4), True)])
def test_cosines_are_those_of_the_dense_matrices(shape, root, centred):
    weights, B = Weights(*shape), positive(shape[1], shape[1], seed=5)
    inside = square_roots(weights.inside) if root else weights.inside
    found = cosines(inside, weights.other(B, 1, centred=centred), centred=centred)
    centre = "entry" if centred else "none"
    made = [reference.square_root(A) if root else A for A in weights.dense()]
    expected = [reference.cosine(A, B, centre=centre) for A in made]
    assert found.tolist() == pytest.approx(expected, abs=1e-6 if root else CLOSE)


@pytest.mark.parametrize(("shape", "k"), [*((shape, 1) for shape in SHAPES), ((4, 6), 3), ((6, 4), 3), ((5, 5), 2)])
def test_overlaps_are_those_of_the_dense_matrices(shape, k):
    weights, B = Weights(*shape), positive(shape[1], shape[1], seed=5)
    found = overlaps(weights.inside, weights.other(B, k))
    expected = [reference.subspace_overlap(A, B, k) for A in weights.dense()]
    assert found.tolist() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
def test_exponents_are_those_of_the_dense_matrices(shape):
    weights = Weights(*shape)
    found = exponents(weights.inside, weights.values)
    M = weights.W.T @ weights.W
    assert found.tolist() == pytest.approx([reference.exponent(M, A)[0] for A in weights.dense()], abs=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_rotated_fact_is_that_of_the_dense_formula(shape):
    weights, P = Weights(*shape), gaussian(*shape, seed=7)
    found = paired(weights.rows, P, weights.values, weights.V)
    for matrix, Q in zip(found, weights.Q, strict=True):
        half = weights.W.T @ Q @ P
        torch.testing.assert_close(matrix, -(half + half.T) / 2, rtol=0, atol=CLOSE)


def test_a_weight_of_deficient_rank_is_no_special_case():
    weights, B = Weights(6, 7, rank=3), positive(7, 7, seed=5)
    assert len(weights.values) == 3
    found = cosines(weights.inside, weights.other(B, 1), centred=False)
    assert found.tolist() == pytest.approx([reference.cosine(A, B) for A in weights.dense()], abs=CLOSE)


def test_more_dimensions_than_the_matrix_has_are_no_overlap():
    weights, B = Weights(4, 6), positive(6, 6, seed=5)
    assert overlaps(weights.inside, weights.other(B, 3)).isfinite().all()
    assert overlaps(weights.inside, weights.other(B, 4)).isnan().all()


def test_levels_are_the_mean_and_the_spread_of_two_hundred_rotations():
    W, S, B = gaussian(5, 8), positive(5, 2), positive(8, 3, seed=1)
    _, values, V = torch.linalg.svd(W, full_matrices=False)
    other = Other(V @ B @ V.T, V[:, :0], float(B.square().sum()), 0.0, V.sum(dim=1), 8)

    def measure(rows: Tensor) -> Tensor:
        return cosines(rotated(rows, S, values.square()), other, centred=False)

    level = rotations(5, 5, measure)
    assert level is not None
    expected = torch.cat([measure(rows) for rows in haar_rows(5, 5, 0)])
    assert level == (float(expected.mean()), float(expected.std()))
    random = torch.Generator().manual_seed(3)
    again = reference.rotated(B, S, lambda M, X: reference.cosine(W.T @ X @ W, M), 200, random)
    assert level.mean == pytest.approx(float(again.mean()), abs=6 * level.sd / 200**0.5)
    assert rotations(5, 5, measure) == level
    assert rotations(5, 5, measure, seed=1) != level


@pytest.mark.parametrize(("undefined", "exists"), [(0.3, True), (0.7, False), (1.0, False)])
def test_a_level_needs_half_of_the_rotations_and_counts_those_with_a_value(undefined, exists):
    def measure(rows: Tensor) -> Tensor:
        values = torch.full((len(rows),), 0.25, dtype=torch.float64)
        values[: int(undefined * len(rows))] = math.nan
        return values

    level = rotations(2, 3, measure)
    assert level == ((0.25, 0) if exists else None)
