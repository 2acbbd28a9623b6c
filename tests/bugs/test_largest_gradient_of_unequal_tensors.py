"""Fault 5: the largest gradient of tensors of different size was divided, which grows with the number of entries."""

import pytest
import torch

from nfa.measures.parameter_groups import root_mean_squares


def test_gradients_of_one_distribution_have_one_size_however_many_they_are() -> None:
    random = torch.Generator().manual_seed(0)
    gradients = {name: torch.randn(n, generator=random) for name, n in {"front": 100_000, "head": 500}.items()}
    found = root_mean_squares({name: [name] for name in gradients}, gradients)
    assert found["front"] / found["head"] == pytest.approx(1, abs=0.1)
    largest = {name: float(gradient.abs().max()) for name, gradient in gradients.items()}
    assert largest["front"] / largest["head"] > 1.2  # of the same distribution
