"""A multi-index model: the target depends on a few directions of the input, which are the true features."""

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.data import TensorDataset

import nfa
from nfa.errors import Refusal
from nfa.maths.known_features import Subspace


def multi_index(
    size: int = 30, directions: int = 3, width: int = 128, examples: int = 4000, seed: int = 0
) -> nfa.Supervised:
    """Train a network with one hidden layer on y = (z₁ + z₁z₂ + … + z₁z₂⋯z_k)/√k.

    Here z = Ux, x is Gaussian, and U [k size] is a random orthonormal matrix. The targets have variance 1. The true
    features are known (relation `agop_known`). Abbe et al. 2022, arXiv 2202.08658.

    Args:
        size: Input dimensions.
        directions: Number k of relevant directions, at most `size`.
        width: Hidden units.
        examples: Examples in each of train, val and test.
        seed: Seed of the directions, the examples and the initial weights.
    """
    if not 0 < directions <= size:
        raise Refusal(f"directions={directions} of size={size}", f"1 to {size}", "directions=3")
    random = torch.Generator().manual_seed(seed)
    known = torch.linalg.qr(torch.randn(size, directions, generator=random)).Q.T

    def drawn() -> TensorDataset:
        inputs = torch.randn(examples, size, generator=random)
        steps = (inputs @ known.T).cumprod(dim=1)
        return TensorDataset(inputs, steps.sum(dim=1, keepdim=True) / directions**0.5)

    return nfa.Supervised(
        model=lambda: nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, 1)),
        loss=squared_error,
        train=drawn(),
        val=drawn(),
        test=drawn(),
        metrics={"sign_accuracy": sign_accuracy},
        known_features={"0": Subspace(known)},
        seed=seed,
    )


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the squared error of each example [n]."""
    return (outputs - targets).square().squeeze(dim=1)


def sign_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return 1 for each example whose output has the sign of its target, else 0 [n]."""
    return ((outputs > 0) == (targets > 0)).squeeze(dim=1).float()
