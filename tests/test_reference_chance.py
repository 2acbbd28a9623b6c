"""The references of chance, of shared weights and of standard errors, against closed forms and whole enumerations."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from nfa import reference


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def positive(size: int, rank: int, seed: int = 0) -> Tensor:
    factor = gaussian(size, rank, seed=seed)
    return factor @ factor.T


def assert_moments(values: Tensor, mean: float, sd: float) -> None:
    """Mean and SD of the draws are these within 4 Monte-Carlo errors."""
    moved = values - values.mean()
    variance, fourth = float(moved.square().mean()), float(moved.pow(4).mean())
    assert abs(float(values.mean()) - mean) < 4 * math.sqrt(variance / len(values))
    assert abs(math.sqrt(variance) - sd) < 4 * math.sqrt((fourth - variance**2) / len(values)) / (2 * sd)


def traceless(A: Tensor) -> Tensor:
    return A - A.trace() / len(A) * torch.eye(len(A), dtype=torch.float64)


def test_rotations_favour_no_direction_and_no_sign():
    """Q is orthogonal, and tr Q has mean 0 and variance 1: QR alone, with the signs as they come, has neither."""
    draws = [reference.rotation(4, source) for source in [generator()] for _ in range(500)]
    for Q in draws:
        torch.testing.assert_close(Q @ Q.T, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-12)
    assert_moments(torch.stack([Q.trace() for Q in draws]), 0, 1)


@pytest.mark.parametrize(("size", "ranks"), [(2, (1, 2)), (5, (1, 1)), (12, (3, 12))])
def test_cosines_under_rotation_have_the_mean_and_the_spread_of_the_closed_forms(size, ranks):
    A, B = positive(size, ranks[0]), positive(size, ranks[1], seed=1)
    norms = float(A.norm() * B.norm())
    mean = float(A.trace() * B.trace()) / size / norms
    spread = math.sqrt(2 / ((size - 1) * (size + 2))) * float(traceless(A).norm() * traceless(B).norm()) / norms
    assert_moments(reference.rotated_cosines(A, B, 600, generator(2)), mean, spread)


def test_cosines_of_an_indefinite_matrix_obey_the_same_closed_form():
    A, B = traceless(positive(6, 2)), positive(6, 3, seed=1)
    spread = math.sqrt(2 / (5 * 8)) * float(traceless(B).norm() / B.norm())
    assert_moments(reference.rotated_cosines(A, B, 600, generator(2)), 0, spread)


def test_cosines_of_centred_entries_have_the_mean_that_follows_from_the_direction_that_centring_removes():
    """Given u = Qᵀe, the mean is tr A′ (tr B − q) / ((i − 1) ‖A′‖ √(‖B‖² − q²)) with q = uᵀBu; u is uniform."""
    size, (A, B) = 6, (positive(6, 4) + 3, positive(6, 2, seed=1))
    A_centred = A - A.mean()
    u = torch.nn.functional.normalize(gaussian(20_000, size, seed=3), dim=1)
    q = ((u @ B) * u).sum(dim=1)
    quotient = ((B.trace() - q) / (B.square().sum() - q.square()).sqrt()).mean()
    expected = float(A_centred.trace() / A_centred.norm() / (size - 1) * quotient)
    values = reference.rotated_cosines(A, B, 600, generator(2), centre="entry")
    assert abs(float(values.mean()) - expected) < 4 * float(values.std()) / math.sqrt(600)
    assert abs(float(A.trace() * B.trace() / A.norm() / B.norm()) / size - expected) > 0.04


@pytest.mark.parametrize(("size", "k"), [(4, 1), (9, 4)])
def test_overlaps_under_rotation_have_the_mean_and_the_spread_of_the_closed_forms(size, k):
    spread = math.sqrt(2 / ((size - 1) * (size + 2))) * (size - k) / size
    values = reference.rotated_overlaps(positive(size, size), positive(size, k, seed=1), k, 600, generator(2))
    assert_moments(values, k / size, spread)


def moments(S: Tensor) -> tuple[float, float]:
    """Return p and q in E tr(XCXC) = (p + q) tr C² + q (tr C)², where X is S rotated."""
    o, square, squares = len(S), float(S.trace() ** 2), float(S.square().sum())
    q = (o * squares - square) / (o * (o - 1) * (o + 2))
    return (square - 2 * q * o) / o**2, q


def norm_of_the_rotated(S: Tensor, C: Tensor) -> float:
    """Return √E tr(XCXC); the closed forms hold where many directions of C take part."""
    assert participation(C) >= 32
    p, q = moments(S)
    return math.sqrt((p + q) * float(C.square().sum()) + q * float(C.trace() ** 2))


def participation(C: Tensor) -> float:
    return float(C.trace() ** 2 / C.square().sum())


WIDE = gaussian(48, 192) + torch.outer(gaussian(48, seed=8), gaussian(192, seed=9)) / 5


@pytest.mark.parametrize("rank", [1, 10, 48])
def test_the_level_that_shared_weights_explain_is_the_closed_form(rank):
    S, C = positive(48, rank, seed=1), WIDE @ WIDE.T
    level = float(S.trace() * C.square().sum()) / 48 / norm_of_the_rotated(S, C) / float(C.norm())
    assert abs(float(reference.shared_nfm(WIDE, S, 100, generator(2)).mean()) - level) < 0.01


def test_the_shared_level_with_initialisation_removed_is_the_closed_form():
    S, initial = positive(48, 10, seed=1), gaussian(48, 192, seed=3) / 2
    change, C = WIDE - initial, WIDE @ WIDE.T
    product, norm = (WIDE @ change.T).square().sum(), (change @ change.T).norm()
    level = float(S.trace() * product / norm) / 48 / norm_of_the_rotated(S, C)
    values = reference.shared_nfm_init_removed(WIDE, initial, S, 100, generator(2))
    assert abs(float(values.mean()) - level) < 0.01


def test_the_shared_level_at_the_outputs_rotates_the_inputs():
    W, H = WIDE.T, positive(48, 10, seed=1)
    M = W.T @ W
    level = float(H.trace() * M.square().sum()) / 48 / norm_of_the_rotated(H, M) / float(M.norm())
    assert abs(float(reference.shared_out_h_vs_m(W, H, 100, generator(2)).mean()) - level) < 0.01


def test_fact_is_at_chance_as_often_above_zero_as_below_it():
    P, C = gaussian(48, 5, seed=1) @ gaussian(5, 192, seed=3), WIDE @ WIDE.T
    squares = C.trace() * P.square().sum() + (P @ WIDE.T).square().sum()
    spread = float((P @ WIDE.T @ C).norm() / (squares / 2).sqrt() / C.norm())
    assert_moments(reference.shared_fact(WIDE, P, 300, generator(2)), 0, spread)


def test_what_is_rotated_in_fact_is_its_symmetric_part():
    """With o = 1 the only rotations are ±1, so that the cosine is ± that of FACT, both signs in turn."""
    W, P = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]])
    expected = reference.cosine(reference.fact(W, P[None], torch.ones(1, 1, 1)), reference.nfm(W))
    values = reference.shared_fact(W, P, 20, generator())
    assert {round(value, 12) for value in values.tolist()} == {round(expected, 12), -round(expected, 12)}


def test_the_shared_level_of_more_outputs_than_inputs_rotates_inside_the_range():
    W, S = WIDE.T, positive(192, 10, seed=1)
    A, M = W.T @ S @ W, W.T @ W
    inside = M.inverse() @ A
    T = torch.diag(torch.linalg.eigvals(inside).real)  # its trace and its norm are all that the closed form needs
    level = float(T.trace() * M.square().sum()) / 48 / norm_of_the_rotated(T, M) / float(M.norm())
    assert abs(float(reference.shared_nfm_within_range(W, A, 100, generator(2)).mean()) - level) < 0.01


def test_a_matrix_that_no_rotation_inside_the_range_changes_keeps_its_value():
    W = gaussian(7, 2) @ gaussian(2, 5, seed=1)  # of rank 2
    values = reference.shared_nfm_within_range(W, 3 * W.T @ W, 5, generator())
    torch.testing.assert_close(values, torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-9)


def test_any_function_of_both_matrices_is_compared():
    """A root of a rank-one matrix is a multiple of it, and the whole range of W stays the whole range of W."""
    W, s = gaussian(3, 6), positive(3, 1, seed=1)
    plain = reference.shared_nfm(W, s, 5, generator(2))
    rooted = reference.shared_nfm(W, s, 5, generator(2), of=lambda A, M: reference.cosine(reference.square_root(A), M))
    torch.testing.assert_close(plain, rooted, rtol=0, atol=1e-6)
    S = positive(3, 3, seed=1)
    overlaps = reference.shared_nfm(W, S, 5, generator(2), of=lambda A, M: reference.subspace_overlap(A, M, 3))
    torch.testing.assert_close(overlaps, torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-9)


def outer(rows: Tensor) -> Tensor:
    return torch.einsum("ni,nj->nij", rows, rows)


def test_influences_are_the_inner_products_with_the_gradient():
    a, b = outer(gaussian(9, 3)), outer(gaussian(9, 3, seed=1))
    A, B = (matrices.mean(dim=0).requires_grad_() for matrices in (a, b))
    ((A * B).sum() / A.norm() / B.norm()).backward()
    expected = (a * A.grad).sum(dim=(1, 2)) + (b * B.grad).sum(dim=(1, 2))
    torch.testing.assert_close(reference.influences(reference.cosine, a, b), expected, rtol=0, atol=1e-8)


POPULATION, STRATA = gaussian(8).square(), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
ALL = [list(places) for places in itertools.combinations(range(8), 4)]
STRATIFIED = [places for places in ALL if STRATA[places].sum() == 2]


@pytest.mark.parametrize("samples", [ALL, STRATIFIED], ids=["all", "stratified"])
def test_squared_standard_errors_are_on_average_the_variance_over_all_samples(samples):
    classes = [STRATA[places] if samples is STRATIFIED else None for places in samples]
    means = torch.stack([POPULATION[places].mean() for places in samples])
    squared = [reference.standard_error(POPULATION[p], 8, c) ** 2 for p, c in zip(samples, classes, strict=True)]
    assert math.isclose(sum(squared) / len(squared), float(means.var(correction=0)), rel_tol=1e-9)


def test_a_class_of_one_example_has_no_variance():
    with pytest.raises(ValueError, match="one example"):
        reference.standard_error(torch.ones(3), 9, torch.tensor([0, 0, 1]))


def test_kurtosis_is_that_of_what_classes_leave_unexplained():
    t, classes = torch.tensor([0.0, 2.0, 10.0, 12.0, 20.0, 26.0]), torch.tensor([0, 0, 1, 1, 2, 2])
    assert math.isclose(reference.kurtosis(t, classes), 6 * (4 + 2 * 81) / (4 + 2 * 9) ** 2)


@pytest.mark.parametrize("samples", [ALL, STRATIFIED], ids=["all", "stratified"])
def test_corrected_norms_and_products_are_on_average_those_of_the_population(samples):
    """The norm is read from a cosine with a fixed matrix, the product from the cosine of both."""
    a, b = outer(gaussian(8, 2)), outer(gaussian(8, 2) + gaussian(8, 2, seed=1) / 4)
    fixed = positive(2, 2, seed=2).expand(4, 2, 2)
    squares, products = [], []
    for places in samples:
        classes, norms = STRATA[places] if samples is STRATIFIED else None, []
        for matrices in (a[places], b[places]):
            along = float((matrices.mean(dim=0) * fixed[0]).sum() / fixed[0].norm())
            norms.append(along / reference.unbiased_cosine(matrices, fixed, 8, classes))
        squares.append(norms[0] ** 2)
        products.append(reference.unbiased_cosine(a[places], b[places], 8, classes) * norms[0] * norms[1])
    A, B = a.mean(dim=0), b.mean(dim=0)
    assert math.isclose(sum(squares) / len(samples), float(A.square().sum()), rel_tol=1e-9)
    assert math.isclose(sum(products) / len(samples), float((A * B).sum()), rel_tol=1e-9)


def test_a_mean_that_is_all_noise_has_no_corrected_cosine():
    opposite = torch.stack([torch.eye(2), -torch.eye(2)])
    with pytest.raises(ValueError, match="noise"):
        reference.unbiased_cosine(opposite, torch.eye(2).expand(2, 2, 2), 100)


def test_two_standard_errors_around_the_corrected_cosine_cover_the_value_of_the_population():
    rows, M, source = gaussian(600, 3) + torch.tensor([1.0, 0.5, 0.0]), positive(3, 2, seed=1), generator(2)
    a, covered = outer(rows), 0
    truth = reference.cosine(a.mean(dim=0), M)
    for _ in range(100):
        drawn = a[torch.randperm(600, generator=source)[:50]]
        error = reference.standard_error(reference.influences(lambda A: reference.cosine(A, M), drawn), 600)
        covered += abs(reference.unbiased_cosine(drawn, M.expand(50, 3, 3), 600) - truth) < 1.96 * error
    assert 88 <= covered <= 99
