"""A fault of gradient programs: the gradient noise scale was divided by the number of coordinates, and biased: what was
published as 1e-5 is about 2, and says the opposite."""

import numpy as np
import pytest
import torch

from nfa.studies.gradient_directions import ProbeExamples, gradient_directions


def noise_scale(rows: torch.Tensor) -> dict[str, float]:
    found = gradient_directions(rows @ rows.T, ProbeExamples(torch.zeros(len(rows))), seed=0).scalars
    names = ("noise_scale", "mean_gradient_squared", "gradient_variance")
    return {name: found[f"gradient/{name}"] for name in names if f"gradient/{name}" in found}


@pytest.mark.parametrize("coordinates", [3, 10, 20_000])
@pytest.mark.parametrize("copies", [1, 5])
def test_it_is_the_trace_over_the_squared_norm_however_many_coordinates_there_are(coordinates, copies):
    """Gradients (3, ±2, 0) and (3, 0, ±2): of n, tr Σ = 4n/(n − 1) and |G|² = 9 − tr Σ/n."""
    n = 4 * copies
    rows = torch.zeros(n, coordinates, dtype=torch.float64)
    rows[:, 0] = 3
    rows[:, 1:3] = torch.tensor([[2, 0], [-2, 0], [0, 2], [0, -2]]).repeat(copies, 1)
    variance = 4 * n / (n - 1)
    expected = {"mean_gradient_squared": 9 - variance / n, "gradient_variance": variance}
    found = noise_scale(rows)
    assert found == pytest.approx({**expected, "noise_scale": variance / expected["mean_gradient_squared"]}, rel=1e-12)
    plain = float(rows.var(dim=0, correction=0).sum() / rows.mean(dim=0).square().sum())
    assert found["noise_scale"] > 1.05 * plain  # the biased one is too small


def test_over_many_probes_it_is_that_of_the_distribution():
    """Normal gradients in 500 dimensions with |G|² = 250 and tr Σ = 500: the noise scale is 2."""
    random, mean = torch.Generator().manual_seed(0), torch.full((500,), 0.5**0.5, dtype=torch.float64)
    probes = [mean + torch.randn(24, 500, dtype=torch.float64, generator=random) for _ in range(40)]
    found = [noise_scale(rows) for rows in probes]
    for name, truth in (("mean_gradient_squared", 250), ("gradient_variance", 500), ("noise_scale", 2)):
        values = np.array([one[name] for one in found])
        assert values.mean() == pytest.approx(truth, abs=3 * values.std() / 40**0.5 + 1e-3)
