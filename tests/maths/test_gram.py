"""Statistics of a Gram matrix of gradients: of the sample itself by the reference, of resampled examples by loops."""

import math

import pytest
import torch
from sklearn.metrics import silhouette_score
from torch import Tensor

from nfa import reference
from nfa.maths import gram

EXACT = {"rel": 1e-10, "abs": 1e-10}
SIZES = [(2, 7, 3), (5, 5), (3, 1, 6, 2)]  # of classes


def classes_of(sizes) -> Tensor:
    """Labels 3, 5, 7, … in an order that is not sorted."""
    labels = torch.repeat_interleave(3 + 2 * torch.arange(len(sizes)), torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


def gradients_of(sizes, seed: int = 0, zeros=()) -> tuple[Tensor, Tensor]:
    """Gradients with a mean for each class, those at `zeros` zero, and the classes."""
    random, classes = torch.Generator().manual_seed(seed), classes_of(sizes)
    means = torch.randn(8, 6, dtype=torch.float64, generator=random)
    rows = means[classes % 8] + torch.randn(len(classes), 6, dtype=torch.float64, generator=random)
    rows[list(zeros)] = 0
    return rows, classes


def once(n: int) -> Tensor:
    return torch.ones(1, n, dtype=torch.float64)


def directions(rows: Tensor, classes: Tensor | None, strata: Tensor | None = None) -> gram.CosineStatistics:
    if strata is None:
        strata = torch.zeros(len(rows), dtype=torch.long) if classes is None else classes
    return gram.CosineStatistics(*gram.cosines(rows @ rows.T), classes, strata)


def mean_or_nan(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


# ---- the sample itself


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("zeros", [(), (0, 4)])
def test_cosines_equal_the_reference_and_rows_without_a_direction_are_zero(sizes, zeros):
    rows, _ = gradients_of(sizes, zeros=zeros)
    found, kept = gram.cosines(rows @ rows.T)
    expected, places = reference.cosines(reference.gradient_gram(rows))
    assert kept.nonzero().squeeze(1).tolist() == places
    torch.testing.assert_close(found[kept][:, kept], expected, rtol=1e-10, atol=1e-10)
    assert not found[~kept].any()
    assert not found[:, ~kept].any()
    assert torch.equal(found.diagonal(), kept.double())


@pytest.mark.parametrize("scale", [1e-150, 1e-8, 1e150])
def test_tiny_and_huge_gradients_have_the_same_cosines_and_none_above_one(scale):
    rows, _ = gradients_of((4, 5))
    rows[1] = 3 * rows[0]
    found, kept = gram.cosines((scale * rows) @ (scale * rows).T)
    assert kept.all()
    torch.testing.assert_close(found, gram.cosines(rows @ rows.T)[0], rtol=1e-12, atol=1e-12)
    assert found.abs().max() == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_example_that_is_not_finite_has_no_direction_and_spoils_no_other(value):
    rows, classes = gradients_of((4, 5))
    expected, _ = gram.cosines(rows @ rows.T)
    rows[2, 1] = value
    K = rows @ rows.T
    found, kept = gram.cosines(K)
    assert kept.tolist() == [place != 2 for place in range(9)]
    torch.testing.assert_close(found[kept][:, kept], expected[kept][:, kept])
    assert not found[2].any()
    assert directions(rows, classes).means(once(9))["mean_cosine"].isfinite()
    assert gram.noise(K, once(9), classes)[0].isnan()
    assert gram.participation_ratio(K, once(9), classes).isnan()


def test_a_pair_that_is_not_finite_leaves_out_both():
    K = torch.eye(4, dtype=torch.float64)
    K[0, 2] = K[2, 0] = math.nan
    assert gram.cosines(K)[1].tolist() == [False, True, False, True]


@pytest.mark.parametrize("size", [1, 2, 4, 5, 12])
def test_block_means_are_the_gram_matrix_of_mean_gradients_and_what_is_left_over_is_left_out(size):
    rows, _ = gradients_of((2, 7, 3))
    means = torch.stack([part.mean(dim=0) for part in rows.split(size) if len(part) == size])
    torch.testing.assert_close(gram.block_means(rows @ rows.T, size), reference.gradient_gram(means))


@pytest.mark.parametrize("sizes", SIZES)
def test_the_participation_ratio_equals_that_of_the_eigenvalues(sizes):
    rows, classes = gradients_of(sizes, zeros=(1,))
    K = rows @ rows.T
    for strata in (classes, torch.zeros_like(classes)):
        assert float(gram.participation_ratio(K, once(len(K)), strata)) == pytest.approx(
            reference.participation_ratio(K), **EXACT
        )
    assert float(gram.participation_ratio(1e-200 * K, once(len(K)), classes)) == pytest.approx(
        reference.participation_ratio(K), **EXACT
    )


@pytest.mark.parametrize("sizes", [(2, 7, 3), (5, 5), (12,), (2, 2, 30)])
def test_the_noise_scale_equals_the_reference_with_classes_and_without(sizes):
    rows, classes = gradients_of(sizes, zeros=(1,))
    K, n = rows @ rows.T, len(rows)
    for strata, given in ((classes, classes), (torch.zeros(n, dtype=torch.long), None)):
        found = [float(part) for part in gram.noise(K, once(n), strata)]
        assert found == pytest.approx(reference.noise_scale(rows, given), **EXACT)


@pytest.mark.parametrize("sizes", [(2, 7, 3), (5, 5), (3, 1, 6, 2)])
@pytest.mark.parametrize("zeros", [(), (0, 4)])
def test_the_silhouette_equals_the_reference_and_scikit_learn(sizes, zeros):
    rows, classes = gradients_of(sizes, zeros=zeros)
    found, (C, places) = directions(rows, classes).silhouette(once(len(rows))), reference.cosines(rows @ rows.T)
    distances = (1 - C).fill_diagonal_(0)
    assert float(found) == pytest.approx(reference.silhouette(distances, classes[places]), **EXACT)
    expected = silhouette_score(distances.clamp(min=0).numpy(), classes[places].numpy(), metric="precomputed")
    assert float(found) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("sizes", SIZES)
def test_mean_cosines_are_means_over_pairs_and_zero_gradients_are_in_none(sizes):
    rows, classes = gradients_of(sizes, zeros=(3,))
    found = directions(rows, classes).means(once(len(rows)))
    C, places = reference.cosines(rows @ rows.T)
    of = classes[places].tolist()
    pairs = [(float(C[a, b]), of[a] == of[b]) for a in range(len(of)) for b in range(len(of)) if a != b]
    assert float(found["mean_cosine"]) == pytest.approx(mean_or_nan([c for c, _ in pairs]), **EXACT)
    assert float(found["within_class_cosine"]) == pytest.approx(mean_or_nan([c for c, own in pairs if own]), **EXACT)
    between = mean_or_nan([c for c, own in pairs if not own])
    assert float(found["between_class_cosine"]) == pytest.approx(between, **EXACT)
    assert set(directions(rows, None).means(once(len(rows)))) == {"mean_cosine"}


# ---- resampled examples: each as often as it was drawn, but no pair with its own copy


def rarity(strata: Tensor, a: int, b: int) -> float:
    """How much more a pair within a stratum of m counts, because 1/m of its draws are copies."""
    m = int((strata == strata[a]).sum())
    return m / (m - 1) if strata[a] == strata[b] else 1.0


def drawn(strata: Tensor, count: int = 6) -> tuple[Tensor, list[list[int]]]:
    """Draws, and for each the list of examples it stands for, copies included."""
    draws = gram.resamples(strata, count, torch.Generator().manual_seed(5))
    return draws, [[a for a in range(len(strata)) for _ in range(int(draw[a]))] for draw in draws]


@pytest.mark.parametrize("sizes", SIZES)
def test_resampled_mean_cosines_equal_loops(sizes):
    rows, classes = gradients_of(sizes, zeros=(3,))
    draws, lists = drawn(classes)
    C, kept = gram.cosines(rows @ rows.T)
    found = directions(rows, classes).means(draws)
    for row, examples in enumerate(lists):
        pairs = [(a, b) for a in examples for b in examples if a != b and kept[a] and kept[b]]
        for name, wanted in (("mean_cosine", {True, False}), ("within_class_cosine", {True})):
            used = [(a, b) for a, b in pairs if bool(classes[a] == classes[b]) in wanted]
            total = sum(rarity(classes, a, b) for a, b in used)
            expected = sum(rarity(classes, a, b) * float(C[a, b]) for a, b in used) / total
            assert float(found[name][row]) == pytest.approx(expected, **EXACT)
        between = mean_or_nan([float(C[a, b]) for a, b in pairs if classes[a] != classes[b]])
        assert float(found["between_class_cosine"][row]) == pytest.approx(between, **EXACT)


@pytest.mark.parametrize("sizes", SIZES)
def test_resampled_participation_ratios_equal_loops(sizes):
    rows, classes = gradients_of(sizes)
    draws, lists = drawn(classes)
    K = rows @ rows.T
    for found, examples in zip(gram.participation_ratio(K, draws, classes), lists, strict=True):
        squares = sum(float(K[a, a]) ** 2 for a in examples)
        squares += sum(rarity(classes, a, b) * float(K[a, b]) ** 2 for a in examples for b in examples if a != b)
        assert float(found) == pytest.approx(sum(float(K[a, a]) for a in examples) ** 2 / squares, **EXACT)


def reference_mean(K: Tensor, inside: Tensor) -> Tensor:
    """Over the pairs of a class, all examples once."""
    return K[inside][:, inside][~torch.eye(int(inside.sum()), dtype=torch.bool)].mean()


@pytest.mark.parametrize("sizes", [(2, 7, 3), (5, 5), (2, 2, 2)])
def test_resampled_noise_equals_loops_and_is_defined_where_a_class_holds_nothing_but_copies(sizes):
    rows, classes = gradients_of(sizes)
    draws, lists = drawn(classes, 20)
    K, n = rows @ rows.T, len(rows)
    squared, variance = gram.noise(K, draws, classes)
    copies = False
    for row, examples in enumerate(lists):
        expected = 0.0
        for c in classes.unique():
            for d in classes.unique():
                left, right = ([a for a in examples if classes[a] == k] for k in (c, d))
                mean = float(reference_mean(K, classes == c)) if c == d else 0.0
                total = sum(float(K[a, b]) - mean for a in left for b in right if a != b)
                pairs = (len(left) - 1) ** 2 if c == d else len(left) * len(right)  # to be expected
                expected += len(left) * len(right) / n**2 * (mean + total / pairs)
            copies |= len({a for a in examples if classes[a] == c}) == 1
        assert float(squared[row]) == pytest.approx(expected, **EXACT)
        mean = sum(float(K[a, a]) for a in examples) / n
        assert float(variance[row]) == pytest.approx(mean - expected, **EXACT)
    assert copies or 2 not in sizes


def looped_silhouette(distances: Tensor, classes: Tensor, examples: list[int]) -> float:
    scores = []
    for a in examples:
        means = {}
        for c in {int(classes[b]) for b in examples}:
            others = [float(distances[a, b]) for b in examples if classes[b] == c and b != a]
            if others:
                means[c] = sum(others) / len(others)
        own, rest = means.pop(int(classes[a]), None), min(means.values())
        scores.append(0.0 if own is None else (rest - own) / max(own, rest))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("cells", [1, 2**24])
def test_resampled_silhouettes_equal_loops_however_many_are_made_at_a_time(sizes, cells, monkeypatch):
    monkeypatch.setattr(gram, "CELLS", cells)
    rows, classes = gradients_of(sizes, zeros=(3,))
    draws, lists = drawn(classes)
    C, kept = gram.cosines(rows @ rows.T)
    for found, examples in zip(directions(rows, classes).silhouette(draws), lists, strict=True):
        expected = looped_silhouette(1 - C, classes, [a for a in examples if kept[a]])
        assert float(found) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("sizes", SIZES)
def test_the_mean_cosine_to_the_own_class_is_over_the_others_of_it_and_their_copies(sizes):
    rows, classes = gradients_of(sizes, zeros=(3,))
    draws, lists = drawn(classes)
    C, kept = gram.cosines(rows @ rows.T)
    found = directions(rows, classes).to_own_class(torch.cat([once(len(rows)), draws]))
    for row, examples in enumerate([list(range(len(rows))), *lists]):
        for a in range(len(rows)):
            others = [float(C[a, b]) for b in examples if b != a and classes[b] == classes[a] and kept[a] and kept[b]]
            assert float(found[row, a]) == pytest.approx(mean_or_nan(others), nan_ok=True, **EXACT)
