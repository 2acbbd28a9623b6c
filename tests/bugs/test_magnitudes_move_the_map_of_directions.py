"""A fault of gradient programs: a map "of directions" was made of the gradients themselves, so that an example lay
where the size of its gradient put it."""

import numpy as np
import torch

from nfa.maths.embedding import fitting_perplexity, tsne
from nfa.studies.gradient_directions import ProbeExamples, gradient_directions

N = 40


def mapped(rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and positions."""
    cosines = gradient_directions(rows @ rows.T, ProbeExamples(torch.zeros(N)), seed=0).arrays["cosines"]
    return cosines, tsne(cosines, perplexity=fitting_perplexity(N), seed=0)


def gradients() -> tuple[torch.Tensor, torch.Tensor]:
    """Two directions, by turns; and sizes between 2⁻⁸ and 2⁸, which float64 multiplies without rounding."""
    random = torch.Generator().manual_seed(0)
    directions = torch.randn(2, 12, dtype=torch.float64, generator=random)[torch.arange(N) % 2]
    rows = directions + 0.3 * torch.randn(N, 12, dtype=torch.float64, generator=random)
    return rows, 2.0 ** torch.randint(-8, 9, (N, 1), generator=random)


def test_sizes_of_gradients_move_nothing():
    rows, sizes = gradients()
    for plain, scaled in zip(mapped(rows), mapped(sizes * rows), strict=True):
        assert np.array_equal(plain, scaled)


def test_neighbours_are_those_of_one_direction_and_not_of_one_size():
    rows, sizes = gradients()
    _, positions = mapped(sizes * rows)
    apart = np.linalg.norm(positions[:, None] - positions, axis=2) + np.diag(np.full(N, np.inf))
    nearest = np.argsort(apart, axis=1)[:, :10]
    assert (nearest % 2 == np.arange(N)[:, None] % 2).mean() > 0.95
    raw = torch.cdist(sizes * rows, sizes * rows).fill_diagonal_(torch.inf)
    by_size = raw.argsort(dim=1)[:, :10].numpy()
    assert (by_size % 2 == np.arange(N)[:, None] % 2).mean() < 0.9
