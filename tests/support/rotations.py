"""Random weights and symmetric matrices, with flat spectra and with spikes, and random rotations in large numbers."""

from collections.abc import Iterator

import torch
from torch import Tensor

AT_A_TIME = 400_000  # numbers


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def positive(size: int, rank: int, seed: int = 0, decay: float = 0.0) -> Tensor:
    """A positive matrix of this rank; the k-th of the terms that it is made of is k^−2·decay as large as the first."""
    half = gaussian(size, rank, seed=seed) * torch.arange(1, rank + 1, dtype=torch.float64) ** -decay
    return half @ half.T


def spiked(o: int, i: int, spikes: int, seed: int = 0) -> Tensor:
    """A Gaussian weight [o, i] plus rank-one terms of norm 1 to 10."""
    W: Tensor = gaussian(o, i, seed=seed) / max(o, i) ** 0.5
    heights = uniform(spikes, seed=seed)
    for number, height in enumerate(heights):
        u, v = (gaussian(size, seed=seed + 1000 * (number + 1) + size) for size in (o, i))
        W += 10 ** float(height) * torch.outer(u / u.norm(), v / v.norm())
    return W


def of_participation(size: int, ratio: float, spikes: int, seed: int = 0) -> Tensor:
    """Positive eigenvalues [size] with this participation ratio (Σ λ)²/Σ λ², brought about by spikes."""
    flat = 0.5 + uniform(size, seed=seed)
    spike = torch.zeros(size, dtype=torch.float64)
    spike[:spikes] = 0.2 + uniform(spikes, seed=seed + 1)
    low, high = 0.0, 1e6
    for _ in range(80):
        middle = (low + high) / 2
        values = flat + middle * spike
        low, high = (middle, high) if participation(values) > ratio else (low, middle)
    return flat + low * spike


def participation(values: Tensor) -> float:
    return float(values.sum() ** 2 / values.square().sum())


def rotations(draws: int, size: int, seed: int = 0, columns: int | None = None) -> Iterator[Tensor]:
    """The first columns of random rotations [part, size, columns], some rotations at a time."""
    columns, random = columns or size, torch.Generator().manual_seed(seed)
    most = max(1, AT_A_TIME // (size * columns))
    for start in range(0, draws, most):
        part = min(most, draws - start)
        Q, R = torch.linalg.qr(torch.randn(part, size, columns, dtype=torch.float64, generator=random))
        yield Q * R.diagonal(dim1=1, dim2=2).sign()[:, None]


def assert_mean(values: Tensor, mean: float, errors: float = 4) -> None:
    """The mean of the draws is this within 4 Monte-Carlo errors."""
    error = float(values.std()) / len(values) ** 0.5
    assert abs(float(values.mean()) - mean) <= errors * error + 1e-12


def assert_spread(values: Tensor, sd: float, errors: float = 4) -> None:
    """The standard deviation of the draws is this within 4 Monte-Carlo errors."""
    moved = values - values.mean()
    variance, fourth = float(moved.square().mean()), float(moved.pow(4).mean())
    error = (max(0.0, fourth - variance**2) / len(values)) ** 0.5 / (2 * sd) if sd else 0.0
    assert abs(variance**0.5 - sd) <= errors * error + 1e-9
