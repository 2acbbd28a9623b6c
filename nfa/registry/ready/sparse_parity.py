"""The parity of a few bits among many: the right features are these bits."""

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
    """Examples are ±1 in `bits` places; their class is whether the product of `relevant` of them, drawn once, is 1.

    val and test have as many examples as train. Barak et al. 2022, arXiv 2207.08799.
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
        loss=loss,
        train=drawn(),
        val=drawn(),
        test=drawn(),
        metrics={"accuracy": accuracy},
        known_features={"0": Subspace(torch.eye(bits)[places])},
        seed=seed,
    )


def loss(outputs: Tensor, classes: Tensor) -> Tensor:
    """Of each example."""
    return F.cross_entropy(outputs, classes, reduction="none")


def accuracy(outputs: Tensor, classes: Tensor) -> Tensor:
    """1 where the largest output is the class's."""
    return (outputs.argmax(dim=1) == classes).float()
