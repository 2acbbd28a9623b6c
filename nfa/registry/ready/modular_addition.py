"""Addition modulo p, the task of grokking: networks memorise it first and generalise much later."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

import nfa
from nfa.errors import Refusal
from nfa.maths.known_features import SumModulo


class Square(nn.Module):
    """x²."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the square of each entry."""
        return x.square()


ACTIVATIONS: dict[str, type[nn.Module]] = {"square": Square, "relu": nn.ReLU, "gelu": nn.GELU}


def modular_addition(
    modulus: int = 31, width: int = 256, activation: str = "square", train_share: float = 0.5, seed: int = 0
) -> nfa.Supervised:
    """Train a network with one hidden layer to add two numbers modulo `modulus`.

    The inputs are all pairs (a, b) as concatenated one-hot vectors; pairs that are not trained on are divided equally
    between val and test. The true features are known: only a + b matters (relation `agop_known`). With the defaults and
    AdamW (lr 0.001, weight_decay 0.5, batch_size 32), training accuracy reaches 1 after 15 epochs, and the accuracy on
    unseen pairs after 220. Power et al. 2022, arXiv 2201.02177; Gromov 2023, arXiv 2301.02679.

    Args:
        modulus: The modulus p, at least 4.
        width: Hidden units.
        activation: "square", "relu" or "gelu".
        train_share: Share of the pairs that are trained on, between 0 and 1.
        seed: Seed of the initial weights and of the choice of training pairs.
    """
    if activation not in ACTIVATIONS:
        raise Refusal(f"activation={activation!r}", ", ".join(ACTIVATIONS), "activation=square")
    if modulus < 4 or not 0 < train_share < 1:
        got = f"modulus={modulus} train_share={train_share}"
        raise Refusal(got, "a modulus ≥ 4 and a share between 0 and 1", "modulus=31 train_share=0.5")
    a, b = torch.cartesian_prod(torch.arange(modulus), torch.arange(modulus)).T
    inputs, sums = torch.cat([F.one_hot(a, modulus), F.one_hot(b, modulus)], dim=1).float(), (a + b) % modulus
    order = torch.randperm(len(sums), generator=torch.Generator().manual_seed(seed))
    seen, unseen = round(train_share * len(sums)), len(sums) - round(train_share * len(sums))
    parts = order.split([seen, unseen // 2, unseen - unseen // 2])
    train, val, test = (TensorDataset(inputs[ids], sums[ids]) for ids in parts)
    return nfa.Supervised(
        model=lambda: nn.Sequential(
            nn.Linear(2 * modulus, width, bias=False), ACTIVATIONS[activation](), nn.Linear(width, modulus, bias=False)
        ),
        loss=squared_error,
        train=train,
        val=val,
        test=test,
        metrics={"accuracy": accuracy},
        known_features={"0": SumModulo(modulus)},
        seed=seed,
    )


def squared_error(outputs: Tensor, sums: Tensor) -> Tensor:
    """Return the mean squared difference from the one-hot sum, for each example [n]."""
    return (outputs - F.one_hot(sums, outputs.shape[1])).square().mean(dim=1)


def accuracy(outputs: Tensor, sums: Tensor) -> Tensor:
    """Return 1 for each example whose sum has the largest output, else 0 [n]."""
    return (outputs.argmax(dim=1) == sums).float()
