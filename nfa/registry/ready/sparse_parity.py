"""Sparse parity: the parity of a few bits among many; these bits are the true features."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

import nfa
from nfa.errors import Refusal
from nfa.maths.known_features import Subspace


def sparse_parity(
    bits: int = 30, relevant: int = 3, width: int = 128, examples: int = 2000, seed: int = 0
) -> nfa.Supervised:
    """Train a network with one hidden layer on the parity of `relevant` randomly chosen bits.

    Inputs are random vectors of ±1; the class is 1 if the product of the relevant bits is 1. The true features are
    known (relation `agop_known`). Barak et al. 2022, arXiv 2207.08799.

    Args:
        bits: Input dimensions.
        relevant: Number of bits that determine the class, at most `bits`.
        width: Hidden units.
        examples: Examples in each of train, val and test.
        seed: Seed of the relevant bits, the examples and the initial weights.
    """
    if not 0 < relevant <= bits:
        raise Refusal(f"relevant={relevant} of bits={bits}", f"1 to {bits}", "relevant=3")
    random = torch.Generator().manual_seed(seed)
    places = torch.randperm(bits, generator=random)[:relevant]

    def drawn() -> TensorDataset:
        inputs = torch.randint(2, (examples, bits), generator=random).float() * 2 - 1
        return TensorDataset(inputs, (inputs[:, places].prod(dim=1) > 0).long())

    return nfa.Supervised(
        model=lambda: nn.Sequential(nn.Linear(bits, width), nn.ReLU(), nn.Linear(width, 2)),
        loss=cross_entropy,
        train=drawn(),
        val=drawn(),
        test=drawn(),
        metrics={"accuracy": accuracy},
        known_features={"0": Subspace(torch.eye(bits)[places])},
        seed=seed,
    )


def cross_entropy(outputs: Tensor, classes: Tensor) -> Tensor:
    """Return the cross-entropy of each example [n]."""
    return F.cross_entropy(outputs, classes, reduction="none")


def accuracy(outputs: Tensor, classes: Tensor) -> Tensor:
    """Return 1 for each example whose class has the largest output, else 0 [n]."""
    return (outputs.argmax(dim=1) == classes).float()
