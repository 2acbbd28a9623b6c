"""Areas under ROC curves, bootstrap samples and their errors, against simulated gradients; what is undefined is NaN."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from nfa.maths import gram

EXACT = {"rel": 1e-10, "abs": 1e-10}


def random_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels(sizes) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


def once(n: int) -> Tensor:
    return torch.ones(1, n, dtype=torch.float64)


def directions(rows: Tensor, classes: Tensor | None) -> gram.CosineStatistics:
    strata = torch.zeros(len(rows), dtype=torch.long) if classes is None else classes
    return gram.CosineStatistics(*gram.cosines(rows @ rows.T), classes, strata)


# ---- how well scores tell some examples from others


@pytest.mark.parametrize("values", ["all different", "many ties", "all the same"])
def test_the_separation_is_the_area_under_the_roc_curve_also_weighted(values):
    scores = torch.randn(40, generator=random_of(1), dtype=torch.float64)
    scores = {"all different": scores, "many ties": scores.round(), "all the same": 0 * scores}[values]
    positive = torch.rand(40, generator=random_of(2)) < 0.3
    draws = torch.cat([once(40), gram.resamples(labels((25, 15)), 20, random_of(3))])
    for found, weights in zip(gram.separation(scores[None], positive, draws), draws, strict=True):
        assert float(found) == pytest.approx(roc_auc_score(positive, scores, sample_weight=weights), **EXACT)


def test_each_draw_can_have_scores_of_its_own_and_examples_without_one_are_left_out():
    scores = torch.randn(8, 30, generator=random_of(1), dtype=torch.float64).mul(2).round()
    absent = torch.rand(8, 30, generator=random_of(4)) < 0.2
    scores[absent] = math.nan
    scores[0, 0] = -math.inf
    absent[0, 0] = True
    positive = torch.rand(30, generator=random_of(2)) < 0.4
    draws = gram.resamples(labels((30,)), 8, random_of(3))
    for row, found in enumerate(gram.separation(scores, positive, draws)):
        used = ~absent[row]
        expected = roc_auc_score(positive[used], scores[row, used], sample_weight=draws[row, used])
        assert float(found) == pytest.approx(expected, **EXACT)


def test_it_is_one_where_all_are_told_and_undefined_where_nothing_is_to_be_told():
    positive = torch.tensor([True, True, False])
    scores = torch.tensor([[3.0, 2.0, 1.0]])
    draws = torch.tensor([[1, 1, 1], [0, 2, 1], [0, 0, 3], [1, 2, 0]], dtype=torch.float64)
    assert gram.separation(scores, positive, draws)[:2].tolist() == [1, 1]
    assert gram.separation(-scores, positive, draws)[:2].tolist() == [0, 0]
    assert gram.separation(scores, positive, draws)[2:].isnan().all()
    assert gram.separation(torch.tensor([[math.nan, math.nan, 1.0]]), positive, draws).isnan().all()


# ---- samples


@pytest.mark.parametrize("sizes", [(12,), (1, 4, 7), (2, 2, 2)])
def test_every_stratum_keeps_its_size_and_every_example_is_drawn_once_on_average(sizes):
    strata = labels(sizes)[torch.randperm(sum(sizes), generator=random_of(0))]
    draws = gram.resamples(strata, 4000, random_of(1))
    assert draws.shape == (4000, sum(sizes))
    assert torch.equal(draws, draws.round())
    for stratum, size in enumerate(sizes):
        part = draws[:, strata == stratum]
        assert (part.sum(dim=1) == size).all()
        variance = 1 - 1 / size  # of a binomial count of `size` draws with probability 1/size
        assert float((part.mean(dim=0) - 1).abs().max()) <= 4.5 * math.sqrt(variance / 4000)
        assert float(part.var()) == pytest.approx(variance, rel=0.1)


def test_samples_depend_on_the_generator_and_on_nothing_else():
    one, same, other = (gram.resamples(labels((5, 6)), 10, random_of(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_standard_error_of_normal_values_is_their_deviation_whatever_a_few_wild_ones_say():
    values = 3 * torch.randn(20000, generator=random_of(0), dtype=torch.float64)
    wild = values.clone()
    wild[:20] = 1e9
    found = gram.standard_errors({"usual": values, "wild": wild, "none": torch.tensor([1.0, math.nan, 2.0])})
    assert set(found) == {"usual", "wild"}
    assert found["usual"] == pytest.approx(3, rel=0.02)
    assert found["wild"] == pytest.approx(found["usual"], rel=0.01)


# ---- simulated gradients of a known mean and covariance


class Simulated:
    """Normal gradients; class c has mean m_c, standard deviation s_c and the share of examples that `sizes` says."""

    dimensions = 6

    def __init__(self, sizes, spread: float, offset: float, seed: int = 0) -> None:
        self.strata, self.random = labels(sizes), random_of(seed)
        shape = (len(sizes), self.dimensions)
        self.means = spread * torch.randn(shape, dtype=torch.float64, generator=random_of(17)) + offset
        self.scales = 1 + torch.arange(len(sizes), dtype=torch.float64) / len(sizes)
        p = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
        self.squared = float((p @ self.means).square().sum())
        second = self.means.square().sum(dim=1) + self.dimensions * self.scales.square()
        self.between = float(p @ self.means.square().sum(dim=1)) - self.squared
        self.variance = float(p @ second) - self.squared

    def rows(self) -> Tensor:
        noise = torch.randn(len(self.strata), self.dimensions, dtype=torch.float64, generator=self.random)
        return self.means[self.strata] + self.scales[self.strata, None] * noise


def spread_of(values: list[float]) -> tuple[float, float, float]:
    """Mean, its standard error, and standard deviation."""
    array = np.array(values)
    return float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array))), float(array.std(ddof=1))


CASES = [((60,), 0.0, 0.4), ((20, 20, 20), 1.0, 0.3), ((40, 15, 5), 1.0, 0.3), ((2,) * 10, 1.0, 0.3)]


@pytest.mark.parametrize(("sizes", "spread", "offset"), CASES)
def test_noise_estimates_of_a_stratified_probe_are_unbiased_and_plain_ones_are_not(sizes, spread, offset):
    simulated = Simulated(sizes, spread, offset)
    n, found, plain = sum(sizes), [], []
    for _ in range(500):
        rows = simulated.rows()
        K = rows @ rows.T
        found.append([float(part) for part in gram.noise(K, once(n), simulated.strata)])
        plain.append(float(gram.noise(K, once(n), torch.zeros(n, dtype=torch.long))[0]))
    for values, truth in zip(zip(*found, strict=True), (simulated.squared, simulated.variance), strict=True):
        mean, error, _ = spread_of(list(values))
        assert abs(mean - truth) < 3 * error
    bias, error, _ = spread_of([p - f for p, (f, _) in zip(plain, found, strict=True)])
    assert bias == pytest.approx(-simulated.between / (n - 1), abs=3 * error + 1e-12)
    assert (bias < -20 * error - 1e-12) == (len(sizes) > 1)


def test_without_a_mean_gradient_a_plain_estimate_of_a_stratified_probe_is_negative_and_this_one_zero():
    simulated = Simulated((10,) * 6, 2.0, 0.0)
    simulated.means -= simulated.means.mean(dim=0)
    found, plain = [], []
    for _ in range(300):
        rows = simulated.rows()
        for strata, values in ((simulated.strata, found), (torch.zeros(60, dtype=torch.long), plain)):
            values.append(float(gram.noise(rows @ rows.T, once(60), strata)[0]))
    mean, error, _ = spread_of(found)
    assert abs(mean) < 3 * error
    mean, error, _ = spread_of(plain)
    assert mean < -10 * error


@pytest.mark.parametrize(("sizes", "spread", "offset"), [*CASES[:3], ((5,) * 12, 1.0, 0.3)])
def test_bootstrap_errors_are_the_spread_over_repetitions(sizes, spread, offset):
    """Within 25 %; of 250 probes the spread is known within 5 %, and samples of classes of m are too alike by 1/m."""
    simulated = Simulated(sizes, spread, offset, seed=1)
    values: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}

    def statistics(K: Tensor, draws: Tensor) -> dict[str, Tensor]:
        squared, variance = gram.noise(K, draws, simulated.strata)
        held = gram.CosineStatistics(*gram.cosines(K), simulated.strata, simulated.strata)
        rank = gram.participation_ratio(K, draws, simulated.strata)
        found = {**held.means(draws), "squared": squared, "variance": variance, "rank": rank}
        return {name: value for name, value in found.items() if value.isfinite().all()}

    for repetition in range(250):
        rows = simulated.rows()
        for name, value in statistics(rows @ rows.T, once(len(rows))).items():
            values.setdefault(name, []).append(float(value))
        if repetition < 30:
            draws = gram.resamples(simulated.strata, 200, random_of(repetition))
            for name, error in gram.standard_errors(statistics(rows @ rows.T, draws)).items():
                errors.setdefault(name, []).append(error)
    assert {"mean_cosine", "within_class_cosine", "squared", "variance", "rank"} <= set(values) == set(errors)
    for name, found in errors.items():
        assert np.mean(found) == pytest.approx(spread_of(values[name])[2], rel=0.25), name


@pytest.mark.parametrize("size", [3, 10])
def test_the_error_of_the_squared_mean_is_no_larger_because_classes_pull_apart(size):
    """Means of classes are a hundred times their mean; how many pairs of a class a draw has must not move it."""
    simulated, values, errors = Simulated((size,) * 10, 3.0, 0.0), [], []
    simulated.means += 0.3 - simulated.means.mean(dim=0)
    for repetition in range(250):
        rows = simulated.rows()
        values.append(float(gram.noise(rows @ rows.T, once(10 * size), simulated.strata)[0]))
        if repetition < 30:
            draws = gram.resamples(simulated.strata, 200, random_of(repetition))
            errors.append(gram.standard_errors({"": gram.noise(rows @ rows.T, draws, simulated.strata)[0]})[""])
    assert np.mean(errors) == pytest.approx(spread_of(values)[2], rel=0.3)


def test_the_error_of_the_separation_counts_that_scores_come_from_a_sample_too():
    """A fifth of the labels are those of the next class; half of the spread is that of who is in the own class."""
    simulated, values, errors = Simulated((20,) * 5, 1.0, 0.5), [], []
    simulated.scales[:] = 1
    for repetition in range(250):
        wrong = torch.rand(100, generator=simulated.random) < 0.2
        rows = torch.where(wrong[:, None], simulated.rows().roll(-20, 0), simulated.rows())
        held = directions(rows, simulated.strata)
        values.append(float(gram.separation(-held.to_own_class(once(100)), wrong, once(100))))
        if repetition < 30:
            draws = gram.resamples(simulated.strata, 200, random_of(repetition))
            found = gram.separation(-held.to_own_class(draws), wrong, draws)
            errors.append(gram.standard_errors({"": found})[""])
    assert np.mean(errors) == pytest.approx(spread_of(values)[2], rel=0.25)


# ---- undefined


@pytest.mark.parametrize("what", ["all gradients are zero", "one class", "one example in each class", "one example"])
def test_what_is_undefined_is_nan_and_the_rest_is_not(what):
    n = 1 if what == "one example" else 6
    rows = torch.randn(n, 4, dtype=torch.float64, generator=random_of(0))
    classes = torch.arange(n) if what == "one example in each class" else torch.zeros(n, dtype=torch.long)
    if what == "all gradients are zero":
        rows, classes = 0 * rows, torch.arange(n) // 3
    held, K = directions(rows, classes), rows @ rows.T
    squared, variance = gram.noise(K, once(n), classes)
    found = {
        **held.means(once(n)),
        "silhouette": held.silhouette(once(n)),
        "rank": gram.participation_ratio(K, once(n), classes),
        "squared": squared,
        "variance": variance,
    }
    defined = {
        "all gradients are zero": {"squared", "variance"},
        "one class": {"mean_cosine", "within_class_cosine", "rank", "squared", "variance"},
        "one example in each class": {"mean_cosine", "between_class_cosine", "rank"},
        "one example": {"rank"},
    }
    assert {name for name, value in found.items() if value.isfinite().all()} == defined[what]
    if what == "all gradients are zero":
        assert (float(squared), float(variance)) == (0, 0)
        assert not held.kept.any()


def test_a_draw_without_a_pair_has_no_silhouette_and_without_classes_there_is_none():
    rows = torch.randn(4, 3, dtype=torch.float64, generator=random_of(0))
    held = directions(rows, torch.tensor([0, 0, 1, 1]))
    draws = torch.tensor([[2, 0, 0, 2], [2, 0, 1, 1], [2, 2, 0, 0]], dtype=torch.float64)
    assert held.silhouette(draws).isnan().tolist() == [True, False, True]
    assert directions(rows, None).silhouette(draws).isnan().all()
