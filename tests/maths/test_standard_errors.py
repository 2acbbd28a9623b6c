"""Standard errors and corrected cosines against the reference, over every kind of pair and of sampling."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from nfa import reference
from nfa.maths import standard_errors
from nfa.maths.congruence import Congruence
from nfa.maths.example_matrices import OuterProducts, PairedProducts
from nfa.maths.replicates import Replicates
from nfa.maths.similarity import Similarity
from nfa.maths.standard_errors import (
    CosineError,
    Matrix,
    SampleMean,
    Sampling,
    cosine_error,
    mean_of,
    stable_rank_error,
)
from tests.support.rotations import gaussian, uniform

CENTRES = ("none", "entry")
CLASSES = torch.arange(60) % 3


@pytest.fixture(autouse=True)
def few_examples_are_enough(monkeypatch):
    """The rule about these has tests of its own."""
    monkeypatch.setattr(standard_errors, "MOST_OF_IT", 2)


def outer(rows: Tensor, factor: Tensor | None = None, stored: int | None = None) -> tuple[SampleMean, Tensor]:
    """E[Σ_s Fᵀ x xᵀ F] with the matrices of the first examples, and those of all of them [n, i, i]."""
    pulled = rows if factor is None else rows @ factor
    core = torch.einsum("nsa,nsb->ab", rows, rows) / len(rows)
    numbers = torch.arange(len(rows))[:stored]
    examples = OuterProducts(rows[:stored], factor, numbers)
    return SampleMean(Congruence(factor, core), examples), torch.einsum("nsa,nsb->nab", pulled, pulled)


def fact(deltas: Tensor, inputs: Tensor, W: Tensor) -> tuple[SampleMean, Tensor]:
    half = -torch.einsum("nsa,nsb->nab", deltas @ W, inputs)
    matrices = (half + half.mT) / 2
    examples = PairedProducts(deltas, inputs, W, torch.arange(len(deltas)))
    return SampleMean(Congruence(None, matrices.mean(dim=0)), examples), matrices


def fixed(i: int, n: int) -> tuple[Congruence, Tensor]:
    """A matrix that does not depend on examples."""
    W = gaussian(3, i, seed=77)
    return Congruence(W, None), (W.T @ W).expand(n, i, i)


def pair(kind: str, n: int = 60, i: int = 4, s: int = 2) -> tuple[tuple[Matrix, Tensor], tuple[Matrix, Tensor]]:
    W, h = gaussian(5, i, seed=3), gaussian(n, s, i, seed=4) + 0.5
    delta = gaussian(n, s, 5, seed=5) * (1 + CLASSES[:n, None, None]) + h.sum(dim=2, keepdim=True)
    return {
        "G and H": lambda: (outer(delta, W), outer(h)),
        "G and M": lambda: (outer(delta, W), fixed(i, n)),
        "H and M": lambda: (outer(h), fixed(i, n)),
        "M and H": lambda: (fixed(i, n), outer(h)),
        "FACT and M": lambda: (fact(delta, h, W), fixed(i, n)),
    }[kind]()


def expected(a: Tensor, b: Tensor, centre: str, population: int, classes: Tensor | None) -> tuple[float, float]:
    """By the reference: the influences with both sides, one that is fixed contributes nothing."""
    if centre == "entry":
        a, b = (matrices - matrices.mean(dim=(1, 2), keepdim=True) for matrices in (a, b))
    moving = [not torch.equal(matrices[0], matrices[-1]) for matrices in (a, b)]

    def of(*means: Tensor) -> float:
        parts = iter(means)
        return reference.cosine(*(next(parts) if moves else x[0] for moves, x in zip(moving, (a, b), strict=True)))

    t = reference.influences(of, *(x for moves, x in zip(moving, (a, b), strict=True) if moves))
    error = reference.standard_error(t, population, classes)
    return error, reference.unbiased_cosine(a, b, population, classes)


KINDS = ("G and H", "G and M", "H and M", "M and H", "FACT and M")


@pytest.mark.parametrize(("kind", "centre"), [*product(KINDS, CENTRES)])
@pytest.mark.parametrize("classes", [None, CLASSES], ids=["one class", "by class"])
def test_errors_and_corrected_cosines_are_those_of_the_reference(kind, centre, classes):
    (a, every_a), (b, every_b) = pair(kind)
    found = cosine_error(a, b, Similarity(centre), Sampling(60, 200, classes))
    assert found == pytest.approx(expected(every_a, every_b, centre, 200, classes), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_close_to_the_reference(kind):
    (a, every_a), (b, every_b) = pair(kind)
    found = cosine_error(single(a), single(b), Similarity(), Sampling(60, 200))
    assert found == pytest.approx(expected(every_a, every_b, "none", 200, None), rel=1e-4)


def single(matrix: Matrix) -> Matrix:
    """The same in float32."""

    def less(part: Tensor | None) -> Tensor | None:
        return part.float() if part is not None and part.is_floating_point() else part

    if isinstance(matrix, Congruence):
        return Congruence(less(matrix.factor), less(matrix.core))
    assert isinstance(matrix, SampleMean)
    examples = type(matrix.examples)(*(less(part) for part in vars(matrix.examples).values()))
    return SampleMean(single(matrix.matrix), examples)


def test_an_unknown_population_is_a_very_large_one():
    (a, _), (b, _) = pair("G and H")
    found, huge = (cosine_error(a, b, Similarity(), Sampling(60, size)) for size in (None, 10**12))
    assert found == pytest.approx(huge, rel=1e-9)


def test_classes_that_differ_make_the_error_of_a_stratified_sample_smaller_and_its_correction_another():
    rows, (b, _) = gaussian(60, 1, 4) + 3 * torch.eye(4).double()[CLASSES][:, None], fixed(4, 60)
    plain, within = (
        cosine_error(outer(rows)[0], b, Similarity(), Sampling(60, 600, classes)) for classes in (None, CLASSES)
    )
    assert within.se < 0.9 * plain.se
    assert plain.unbiased > within.unbiased + 0.005


def test_a_class_with_one_example_leaves_classes_out():
    (a, _), (b, _) = pair("G and H")
    classes = CLASSES.clone()
    classes[7] = 9
    plain, found = (cosine_error(a, b, Similarity(), Sampling(60, 600, strata)) for strata in (None, classes))
    assert found == plain


def test_names_of_classes_do_not_matter():
    (a, _), (b, _) = pair("G and H")
    expected, found = (cosine_error(a, b, Similarity(), Sampling(60, 600, c)) for c in (CLASSES, 100 - 7 * CLASSES))
    assert found == pytest.approx(expected, rel=1e-12)


def test_neither_scale_moves_an_error():
    (a, _), (b, _) = pair("G and H")
    expected = cosine_error(a, b, Similarity(), Sampling(60, 600))
    larger = outer(1e6 * a.examples.rows, a.examples.factor)[0]
    assert cosine_error(larger, b, Similarity(), Sampling(60, 600)) == pytest.approx(expected, rel=1e-9)


def test_the_corrected_cosine_is_not_the_plain_one_and_the_whole_population_needs_no_correction():
    (a, _), (b, _) = pair("H and M")
    plain = Similarity().cosine(mean_of(a), mean_of(b))
    errors = [cosine_error(a, b, Similarity(), Sampling(60, size)) for size in (61, 120, None)]
    distances = [error.unbiased - plain for error in errors]
    assert 1e-6 < distances[0] < distances[1] < distances[2]
    assert errors[0].se < errors[1].se < errors[2].se
    assert cosine_error(a, b, Similarity(), Sampling(60, 60)) is None


def test_the_corrected_cosine_is_that_of_the_population_on_average():
    """Where the plain one is too low: noise adds to the norm."""
    rows, (M, _) = gaussian(3000, 1, 6) * (1 + uniform(3000, 1, 1)), fixed(6, 1)
    truth, random = Similarity().cosine(mean_of(outer(rows)[0]), M), torch.Generator().manual_seed(0)
    found = []
    for _ in range(300):
        a = outer(rows[torch.randperm(3000, generator=random)[:60]])[0]
        found.append((cosine_error(a, M, Similarity(), Sampling(60, 3000)), Similarity().cosine(mean_of(a), M)))
    corrected = sum(error.unbiased for error, _ in found) / 300 - truth
    plain = sum(value for _, value in found) / 300 - truth
    assert plain < -0.02
    assert abs(corrected) < abs(plain) / 3
    covered = sum(abs(error.unbiased - truth) < 1.96 * error.se for error, _ in found) / 300
    assert 0.9 < covered < 0.99


def test_the_first_examples_tell_about_the_error_of_all():
    rows, (M, _) = gaussian(2000, 1, 4), fixed(4, 1)
    whole, part = (
        cosine_error(outer(rows, stored=stored)[0], M, Similarity(), Sampling(2000, 9000)) for stored in (None, 300)
    )
    assert part.se == pytest.approx(whole.se, rel=0.15)
    assert part.unbiased == pytest.approx(whole.unbiased, abs=2e-4)
    assert part != whole


def test_sides_that_have_stored_different_examples_use_those_in_common():
    delta, h, W = gaussian(60, 1, 5), gaussian(60, 1, 4, seed=1), gaussian(5, 4, seed=2)
    short, long = outer(delta, W, stored=30)[0], outer(h, stored=50)[0]
    found = cosine_error(short, long, Similarity(), Sampling(60, 600))
    assert found == cosine_error(short, outer(h, stored=30)[0], Similarity(), Sampling(60, 600))


class TestFewExamplesDecide:
    @pytest.fixture(autouse=True)
    def few_examples_are_enough(self):
        """The rule holds here."""

    @staticmethod
    def error(rows: Tensor, of: Callable[[int], Sampling]) -> CosineError | None:
        return cosine_error(outer(rows)[0], fixed(rows.shape[2], 1)[0], Similarity(), of(len(rows)))

    def test_many_alike_have_an_error_and_a_few_large_ones_have_none(self):
        rows = gaussian(400, 1, 4)
        outlier = torch.cat([rows[:-1], 40 * rows[-1:]])
        assert self.error(rows, lambda n: Sampling(n, 10 * n)) is not None
        assert self.error(outlier, lambda n: Sampling(n, 10 * n)) is None

    def test_a_twentieth_that_carries_most_of_the_variance_decides_and_larger_parts_do_not(self):
        def scaled(share: float) -> Tensor:
            large = (torch.arange(400) < 400 * share)[:, None, None]
            return gaussian(400, 1, 4) * torch.where(large, 4.0, 1.0).double()

        assert self.error(scaled(0.04), lambda n: Sampling(n, 10 * n)) is None
        assert self.error(scaled(0.8), lambda n: Sampling(n, 10 * n)) is not None

    def test_the_whole_population_has_an_error_of_directions_whoever_decides(self):
        a = estimates(40)
        a.sample[3] *= 1000
        assert cosine_error(a, fixed(4, 1)[0], Similarity(), Sampling(40, 40)) is not None
        assert cosine_error(a, fixed(4, 1)[0], Similarity(), Sampling(40, 400)) is None

    def test_examples_that_are_all_the_same_have_an_error_of_zero(self):
        found = self.error(torch.ones(40, 1, 4).double(), lambda n: Sampling(n, 10 * n))
        assert found.se == pytest.approx(0, abs=1e-9)


class TestUndefined:
    M = fixed(4, 1)[0]

    def error(self, rows: Tensor, other: Matrix | None = None) -> CosineError | None:
        return cosine_error(outer(rows)[0], other or self.M, Similarity(), Sampling(len(rows), 600))

    def test_one_example_has_no_error(self):
        assert self.error(gaussian(1, 2, 4)) is None

    def test_fewer_than_32_examples_have_none(self):
        assert self.error(gaussian(31, 9, 4)) is None
        assert math.isfinite(self.error(gaussian(32, 9, 4)).se)

    def test_matrices_that_do_not_depend_on_examples_have_none(self):
        assert cosine_error(self.M, self.M, Similarity(), Sampling(60, 600)) is None

    @pytest.mark.parametrize("entry", [0.0, math.nan, math.inf, 1e200])
    @pytest.mark.parametrize("centre", CENTRES)
    def test_with_a_matrix_without_a_norm_there_is_none(self, entry, centre):
        rows = gaussian(20, 1, 4)
        bad, spoilt = Congruence(None, torch.full((4, 4), entry, dtype=torch.float64)), rows.clone()
        spoilt[3, 0, 2] = entry
        spoilt = 0 * rows if entry == 0 else spoilt
        for a, b in ((rows, bad), (spoilt, self.M), (spoilt, bad)):
            assert cosine_error(outer(a)[0], b, Similarity(centre), Sampling(20, 600)) is None

    def test_where_noise_explains_a_norm_there_is_none(self):
        """Pairs of opposite FACTs."""
        delta, h, W = gaussian(40, 1, 5), gaussian(40, 1, 4, seed=1), gaussian(5, 4, seed=2)
        signs = torch.tensor([1.0, -1.0]).double().repeat(20)[:, None, None]
        noisy = delta[:1] * signs + 1e-3 * delta
        a = fact(noisy, h[:1].expand(40, 1, 4), W)[0]
        assert Similarity().cosine(mean_of(a), self.M) is not None
        assert cosine_error(a, self.M, Similarity(), Sampling(40, 600)) is None

def estimates(n: int, R: int = 3, stored: int | None = None, noise: float = 1.0) -> Replicates:
    """J_v = Σ_k v_k J_k with signs v."""
    J, W = gaussian(n, 1, 6, 5, seed=1), gaussian(5, 4, seed=2)
    signs = 2.0 * (uniform(n, R, 6, seed=3) > 0.5).double() - 1
    J[:, :, 1:] *= noise
    rows = torch.einsum("nrk,nskb->nrsb", signs, J)
    cores = torch.einsum("nrsa,nrsb->rab", rows, rows) / n
    return Replicates(W, list(cores), rows[:stored], n)


class TestRandomDirections:
    M = fixed(4, 1)[0]

    def test_both_errors_add_up(self):
        """Total variance over examples counts both; the part of the directions is all that is left at n = N."""
        a = estimates(300)
        errors = [cosine_error(a, self.M, Similarity(), Sampling(300, size)) for size in (None, 600, 300)]
        squares = [error.se**2 for error in errors]
        assert squares[0] > squares[1] > squares[2] > 0
        assert squares[1] == pytest.approx((squares[0] + squares[2]) / 2, rel=1e-9)
        assert errors[2].se == pytest.approx(a.cosine(self.M, Similarity()).se, rel=0.05)

    def test_the_value_without_unseen_examples_is_the_debiased_cosine(self):
        a = estimates(300)
        found = cosine_error(a, self.M, Similarity(), Sampling(300, 300))
        assert found.unbiased == pytest.approx(a.cosine(self.M, Similarity()).value, rel=1e-12)

    @pytest.mark.parametrize("classes", [None, torch.arange(300) % 3], ids=["one class", "by class"])
    def test_norms_are_corrected_with_products_of_different_estimates(self, classes):
        """‖A‖² := mean ⟨A_r, A_q⟩ − (1 − n/N)/n times the covariance of ⟨a_nr, a_nq⟩ over r ≠ q."""
        a = estimates(300)
        found = cosine_error(a, self.M, Similarity(), Sampling(300, 900, classes))
        pulled = a.sample @ a.factor
        each = torch.einsum("nrsa,nrsb->nrab", pulled, pulled)
        members = [torch.arange(300) % 3 == c for c in range(3)] if classes is not None else [torch.ones(300).bool()]
        covariance, squared = 0.0, 0.0
        for r, q in ((0, 1), (0, 2), (1, 2)):
            squared += float((each[:, r].mean(0) * each[:, q].mean(0)).sum()) / 3
            for chosen in members:
                x, y = each[chosen, r], each[chosen, q]
                products = ((x - x.mean(0)) * (y - y.mean(0))).sum() / (len(x) - 1)
                covariance += len(x) / 300 * float(products) / 3
        squared -= (1 - 300 / 900) / 300 * covariance
        M = self.M.dense()
        expected = float((each.mean(dim=(0, 1)) * M).sum() / M.norm()) / squared**0.5
        assert found.unbiased == pytest.approx(expected, rel=1e-9)

    def test_the_error_covers_the_value_of_the_population(self):
        J, W = gaussian(4000, 6, 5, seed=1), gaussian(5, 4, seed=2)
        truth = reference.cosine(torch.einsum("nka,nkb->ab", J @ W, J @ W), self.M.dense())
        random, covered = torch.Generator().manual_seed(0), 0
        for _ in range(200):
            chosen = J[torch.randperm(4000, generator=random)[:60]]
            signs = torch.randint(0, 2, (60, 2, 6), generator=random).double() * 2 - 1
            rows = torch.einsum("nrk,nkb->nrb", signs, chosen)[:, :, None]
            a = Replicates(W, list(torch.einsum("nrsa,nrsb->rab", rows, rows) / 60), rows, 60)
            found = cosine_error(a, self.M, Similarity(), Sampling(60, 4000))
            covered += abs(found.unbiased - truth) < 1.96 * found.se
        assert 0.88 < covered / 200 < 0.99


def test_where_sampling_makes_more_than_half_of_a_norm_there_is_no_unbiased_cosine():
    """Rows around 0 have a mean matrix that is noise if there are as many dimensions as examples."""
    rows, other = gaussian(40, 1, 60, seed=1), Congruence(None, torch.diag(torch.arange(60, dtype=torch.float64)))
    noisy = SampleMean(
        Congruence(None, torch.einsum("nsa,nsb->ab", rows, rows) / 40), OuterProducts(rows, None, torch.arange(40))
    )
    assert cosine_error(noisy, other, Similarity(), Sampling(40)) is None
    few = rows[:, :, :4]
    clear = SampleMean(
        Congruence(None, torch.einsum("nsa,nsb->ab", few, few) / 40), OuterProducts(few, None, torch.arange(40))
    )
    small = Congruence(None, torch.diag(torch.arange(4, dtype=torch.float64)))
    assert cosine_error(clear, small, Similarity(), Sampling(40)) is not None


def rank_error(rows: Tensor, population: int = 10**6) -> float | None:
    """The standard error of the stable rank of E[x xᵀ]."""
    measured, _ = outer(rows[:, None])
    values, vectors = torch.linalg.eigh(measured.matrix.dense())
    sampling = Sampling(len(rows), population)
    return stable_rank_error(measured, values.flip(0)[:2], vectors[:, -1], Similarity(), sampling)


ONE_OF_TWELVE = torch.eye(12, dtype=torch.float64)[torch.arange(512) * 7919 % 1009 % 12]


@pytest.mark.parametrize(
    "rows", [gaussian(512, 8), gaussian(512, 8).sign(), ONE_OF_TWELVE], ids=["Gaussian", "bits", "one of twelve"]
)
def test_a_stable_rank_has_no_error_where_no_eigenvalue_stands_out(rows):
    assert rank_error(rows) is None


@pytest.mark.parametrize("scale", [1.5, 3.0])
def test_where_one_eigenvalue_stands_out_the_error_is_that_of_repeated_samples(scale):
    several = gaussian(400 * 512, 6, seed=3).view(400, 512, 6) * torch.tensor([scale, *[1.0] * 5], dtype=torch.float64)
    squares = torch.linalg.eigvalsh(several.transpose(1, 2) @ several / 512)
    spread = float((squares.square().sum(dim=1) / squares[:, -1].square()).std())
    found = [error for rows in several[:40] if (error := rank_error(rows)) is not None]
    assert len(found) > 20
    assert sum(found) / len(found) == pytest.approx(spread, rel=0.15)


def test_what_a_matrix_makes_of_a_vector_is_that_of_the_dense_matrix():
    vector = gaussian(4, seed=11)
    for measured, matrices in (pair("G and H")[0], pair("G and H")[1], pair("FACT and M")[0]):
        expected = (matrices @ vector).square().sum(dim=1)
        torch.testing.assert_close(measured.examples.squared_through(vector), expected)
