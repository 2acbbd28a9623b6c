"""Losses are each example's own, and their formulas those of their docstrings."""

import pytest
import torch

from nfa.maths.exact_losses import negative_log_likelihood
from nfa.registry.families.mlp.losses import LOSSES, mse


def examples() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(6) % 4


def test_mse_is_the_mean_over_classes_of_the_squared_difference_to_one_hot():
    logits, labels = examples()
    expected = [
        sum((logits[n, k] - (1.0 if k == labels[n] else 0.0)) ** 2 for k in range(4)) / 4 for n in range(len(logits))
    ]
    torch.testing.assert_close(mse(logits, labels), torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_cross_entropy_is_minus_the_log_probability_of_the_label():
    logits, labels = examples()
    probabilities = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    expected = -probabilities[torch.arange(6), labels].log()
    torch.testing.assert_close(negative_log_likelihood(logits, labels), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_an_examples_loss_depends_on_that_example_alone(name):
    logits, labels = examples()
    whole = LOSSES[name](logits, labels)
    assert whole.shape == (6,)
    for n in range(6):
        torch.testing.assert_close(LOSSES[name](logits[n : n + 1], labels[n : n + 1])[0], whole[n], rtol=1e-14, atol=0)
