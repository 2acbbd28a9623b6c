"""t-SNE with all pairs is the published one: its affinities have the perplexity, its gradient is that of the
divergence, and its steps are those of scikit-learn's exact method.
"""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from sklearn.manifold import TSNE

from nfa.maths.exact_tsne import FIRST, Gradient, affinities, exact_tsne

N, PERPLEXITY = 120, 7.0


@pytest.fixture(scope="module")
def squared() -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(N, 5))
    return squareform(pdist(rows / np.linalg.norm(rows, axis=1, keepdims=True))) ** 2


@pytest.fixture
def start() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(N, 2)).astype(np.float32)


def conditional(squared: np.ndarray, row: int, beta: float) -> np.ndarray:
    weights = np.exp(-beta * np.delete(squared[row], row))
    return weights / weights.sum()


def test_affinities_are_symmetric_and_every_row_has_the_perplexity(squared: np.ndarray) -> None:
    found = affinities(squared, PERPLEXITY)
    expected = np.zeros((N, N))
    for row in range(N):
        betas = np.exp(np.linspace(-3, 6, 100_000))
        low, high = 0, len(betas) - 1
        while high - low > 1:  # the entropy falls as β grows
            middle = (low + high) // 2
            p = conditional(squared, row, betas[middle])
            low, high = (middle, high) if np.exp(-(p * np.log(p)).sum()) > PERPLEXITY else (low, middle)
        expected[row, np.arange(N) != row] = conditional(squared, row, betas[low])
    np.testing.assert_allclose(found, (expected + expected.T) / (2 * N), rtol=2e-3, atol=1e-7)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert not found.diagonal().any()
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("perplexity", [1.0, N - 1.0])
def test_affinities_of_equal_points_are_equal_whatever_the_perplexity(perplexity: float) -> None:
    found = affinities(np.zeros((N, N)), perplexity)
    np.testing.assert_allclose(found[~np.eye(N, dtype=bool)], 1 / (N * (N - 1)), rtol=1e-12)


def test_the_gradient_is_that_of_the_divergence(squared: np.ndarray, start: np.ndarray) -> None:
    affinity = affinities(squared, PERPLEXITY)
    places = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    others = ~torch.eye(N, dtype=torch.bool)
    kernel = (1 / (1 + (places[:, None] - places[None]).square().sum(dim=2)))[others]
    p = torch.tensor(affinity)[others]
    (p * (p / (kernel / kernel.sum())).log()).sum().backward()
    found = Gradient(N)(affinity.astype(np.float32), start)
    assert places.grad is not None
    np.testing.assert_allclose(found, places.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("exaggeration", "iterations"), [(2.0, FIRST), (1.0, FIRST + 30)])
def test_its_steps_are_those_of_scikit_learn_s_exact_method(
    squared: np.ndarray, start: np.ndarray, exaggeration: float, iterations: int
) -> None:
    method = TSNE(
        metric="precomputed",
        method="exact",
        init=start,
        perplexity=PERPLEXITY,
        early_exaggeration=exaggeration,
        max_iter=iterations,
    )
    expected = method.fit_transform(np.sqrt(squared))
    found = exact_tsne(squared, start, perplexity=PERPLEXITY, exaggeration=exaggeration, iterations=iterations)
    assert found.dtype == np.float32
    assert np.corrcoef(pdist(found), pdist(expected))[0, 1] > 0.999
