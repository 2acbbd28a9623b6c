"""Chance levels of labelled directions, by the reference, which permutes labels and computes everything again."""

import pytest
import torch
from torch import Tensor

from nfa import reference
from nfa.maths import gram, permuted_labels

EXACT = {"rel": 1e-9, "abs": 1e-12}
DRAWS = 2000


def random_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels_of(*sizes: int) -> Tensor:
    return torch.repeat_interleave(4 - 3 * torch.arange(len(sizes)), torch.tensor(sizes))


def cosines_of(n: int, seed: int = 0, *, common: float = 0.5) -> Tensor:
    """Of directions in 3 dimensions that have something in common."""
    rows = torch.randn(n, 3, dtype=torch.float64, generator=random_of(seed)) + common
    return gram.cosines(rows @ rows.T)[0]


def structured(sizes: tuple[int, ...], seed: int = 0) -> Tensor:
    """Cosines of directions that depend on the class."""
    means = torch.randn(len(sizes), 5, dtype=torch.float64, generator=random_of(seed))
    rows = torch.repeat_interleave(means, torch.tensor(sizes), dim=0)
    rows = rows + 0.5 * torch.randn(rows.shape, dtype=torch.float64, generator=random_of(seed + 1))
    return gram.cosines(rows @ rows.T)[0]


# ---- mean cosines


@pytest.mark.parametrize("sizes", [(2, 1), (2, 2), (3, 1), (1, 3, 1), (4, 2), (2, 1, 1, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_the_moments_of_mean_cosines_are_those_over_every_permutation(sizes, seed):
    cosines, labels = cosines_of(sum(sizes), seed), labels_of(*sizes)
    for same, found in zip((True, False), permuted_labels.mean_cosines(cosines, labels), strict=True):
        expected = reference.over_permutations(
            lambda of, same=same: reference.mean_of_pairs(cosines.tolist(), of, same=same), labels.tolist()
        )
        assert found == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("sizes", [(10, 10), (1, 19), (12, 1, 4, 1), (2,) * 9])
def test_of_more_examples_they_are_those_of_random_permutations(sizes):
    cosines, labels = cosines_of(sum(sizes), 7), labels_of(*sizes)
    for same, (mean, deviation) in zip((True, False), permuted_labels.mean_cosines(cosines, labels), strict=True):
        expected = reference.over_permutations(
            lambda of, same=same: reference.mean_of_pairs(cosines.tolist(), of, same=same), labels.tolist(), DRAWS
        )
        assert mean == pytest.approx(expected[0], abs=4 * deviation / DRAWS**0.5)
        assert deviation == pytest.approx(expected[1], rel=0.1)  # four errors of a skewed distribution's


def test_equal_cosines_have_a_level_without_a_spread():
    cosines = torch.full((12, 12), 0.3, dtype=torch.float64).fill_diagonal_(1)
    for mean, deviation in permuted_labels.mean_cosines(cosines, labels_of(5, 7)):
        assert mean == pytest.approx(0.3)
        assert deviation == pytest.approx(0, abs=1e-15)


# ---- silhouettes


@pytest.mark.parametrize("sizes", [(2, 1), (4, 4), (1, 5, 3), (2, 1, 1, 9)])
def test_silhouettes_of_many_labellings_are_those_of_the_reference_one_by_one(sizes):
    cosines, labels = cosines_of(sum(sizes), 3), labels_of(*sizes)
    _, places, counts = labels.unique(return_inverse=True, return_counts=True)
    orders = [torch.randperm(len(labels), generator=random_of(seed)) for seed in range(5)]
    found = permuted_labels.silhouettes(cosines, torch.stack([places[order] for order in orders]), counts)
    expected = [reference.silhouette((1 - cosines).fill_diagonal_(0), labels[order]) for order in orders]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("apart", [0.0, 1e-13])
def test_distances_that_hardly_differ_have_silhouettes_that_hardly_do(apart):
    """Sums in float32 of the distances themselves would differ by 1e-7 of them."""
    noise = torch.randn(12, 12, dtype=torch.float64, generator=random_of(1))
    cosines = (0.5 + apart * (noise + noise.T)).fill_diagonal_(1)
    mean, deviation = permuted_labels.silhouette(cosines, labels_of(4, 4, 4), random_of(2))
    assert abs(mean) <= 20 * apart
    assert (deviation > 0) == (apart > 0)


@pytest.mark.parametrize("cells", [1, 2**22])
def test_the_moments_of_the_silhouette_are_those_of_random_permutations(cells, monkeypatch):
    monkeypatch.setattr(permuted_labels, "CELLS", cells)
    cosines, labels = cosines_of(14, 4), labels_of(6, 5, 2, 1)
    mean, deviation = permuted_labels.silhouette(cosines, labels, random_of(3))
    distances = (1 - cosines).fill_diagonal_(0)
    expected = reference.over_permutations(
        lambda of: reference.silhouette(distances, torch.tensor(of)), labels.tolist(), DRAWS
    )
    assert mean == pytest.approx(expected[0], abs=4 * deviation * (1 / 200 + 1 / DRAWS) ** 0.5)
    assert deviation == pytest.approx(expected[1], rel=0.25)  # four errors of 200 draws


def test_the_same_seed_draws_the_same_permutations_and_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    cosines, labels = cosines_of(12), labels_of(6, 6)
    one, same, other = (permuted_labels.silhouette(cosines, labels, random_of(seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert torch.equal(torch.random.get_rng_state(), state)


# ---- areas under ROC curves


@pytest.mark.parametrize("positive", [1, 2, 5])
@pytest.mark.parametrize("values", ["all different", "ties", "all the same"])
def test_the_moments_of_the_area_are_those_over_every_permutation(positive, values):
    scores = torch.randn(6, generator=random_of(2), dtype=torch.float64)
    scores = {"all different": scores, "ties": torch.tensor([1, 2, 2, 2, 3, 3.0]), "all the same": 0 * scores}[values]
    marks = [1] * positive + [0] * (6 - positive)
    expected = reference.over_permutations(lambda of: reference.area(scores.tolist(), of), marks)
    assert permuted_labels.separation(scores, torch.tensor(marks).bool()) == pytest.approx(expected, **EXACT)


def test_examples_without_a_score_do_not_count_and_there_must_be_both_kinds():
    scores = torch.tensor([1.0, torch.nan, 2.0, 3.0, torch.inf])
    for marks, others in (([1, 0, 0, 0, 1], [1, 0, 0]), ([0, 1, 0, 1, 0], [0, 0, 1])):
        rest = permuted_labels.separation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor(others).bool())
        assert permuted_labels.separation(scores, torch.tensor(marks).bool()) == rest is not None
    assert permuted_labels.separation(scores, torch.tensor([0, 1, 0, 0, 1]).bool()) is None
    assert permuted_labels.separation(scores, torch.ones(5, dtype=torch.bool)) is None


# ---- random signs


@pytest.mark.parametrize("n", [2, 3, 7])
def test_the_moments_of_the_mean_over_all_pairs_are_those_over_every_choice_of_signs(n):
    cosines = cosines_of(n, n)
    assert permuted_labels.random_signs(cosines) == pytest.approx(reference.over_signs(cosines), **EXACT)


# ---- what must hold, and what must not


def test_names_and_the_order_of_examples_change_no_closed_form():
    cosines, labels = cosines_of(12), labels_of(3, 4, 5)
    order = torch.randperm(12, generator=random_of(5))
    found = permuted_labels.mean_cosines(cosines, labels)
    moved = permuted_labels.mean_cosines(cosines[order][:, order], 100 - labels[order])
    assert moved == (pytest.approx(found[0], **EXACT), pytest.approx(found[1], **EXACT))


@pytest.mark.parametrize("sizes", [(15, 15), (4, 20, 6), (10, 10, 10, 1)])
def test_classes_that_are_there_are_far_from_their_level_and_permuted_ones_are_not(sizes):
    cosines, labels = structured(sizes), labels_of(*sizes)
    for of, far in ((labels, True), (labels[torch.randperm(len(labels), generator=random_of(9))], False)):
        directions = gram.CosineStatistics(cosines, torch.ones(len(of), dtype=torch.bool), of, of)
        once = torch.ones(1, len(of), dtype=torch.float64)
        within, between = permuted_labels.mean_cosines(cosines, of)
        levels = {"within": within, "between": between}
        levels["silhouette"] = permuted_labels.silhouette(cosines, of, random_of(1))
        values = directions.means(once)
        values = {name: float(values[f"{name}_class_cosine"]) for name in ("within", "between")}
        values["silhouette"] = float(directions.silhouette(once))
        beyond = {name: (values[name] - mean) / deviation for name, (mean, deviation) in levels.items()}
        if far:
            assert beyond["within"] > 6
            assert beyond["between"] < -6
            assert beyond["silhouette"] > 6
        else:
            assert max(map(abs, beyond.values())) < 4
