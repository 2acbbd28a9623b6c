"""The bias-free multilayer perceptron of the feature-learning literature."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "leaky_relu": F.leaky_relu,
    "sine": torch.sin,
    "tanh": torch.tanh,
    "identity": lambda z: z,
}


class MLP(nn.Module):
    """`depth` hidden layers of `width` and a readout: layers.0.weight … layers.{depth}.weight, each [out, in]."""

    def __init__(self, inputs: int, classes: int, *, width: int, depth: int, activation: str = "relu") -> None:
        super().__init__()
        sizes = [inputs, *[width] * depth, classes]
        # Weights are drawn by `initialise`. (On the meta device none would be, but PyTorch loads sympy for it.)
        with torch.random.fork_rng(devices=[]):
            self.layers = nn.ModuleList(nn.Linear(before, after, bias=False) for before, after in pairwise(sizes))
        self.activation = ACTIVATIONS[activation]

    def matrices(self) -> list[nn.Parameter]:
        """The weights of all layers, first to last."""
        return list(self.layers.parameters())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits [n classes] of inputs [n …], which are flattened."""
        hidden = inputs.flatten(1)
        for layer in self.layers[:-1]:
            hidden = self.activation(layer(hidden))
        logits: Tensor = self.layers[-1](hidden)
        return logits


def initialise(model: MLP, init: str, generator: torch.Generator) -> None:
    """Draw new weights for `model`.

    default: U(−1/√in, 1/√in), PyTorch's Linear default. small: half of these values.
    balanced: W_{l+1}ᵀ W_{l+1} = W_l W_lᵀ at every layer (Arora et al. 2018, arXiv 1802.06509): all matrices have
    the same singular values, as many as the narrowest layer has units, and neighbouring layers share random bases.
    """
    weights = model.matrices()
    with torch.no_grad():
        for weight in weights:
            bound = (0.5 if init == "small" else 1.0) / math.sqrt(weight.shape[1])
            weight.uniform_(-bound, bound, generator=generator)
        if init == "balanced":
            for weight, balanced in zip(weights, _balanced(weights, generator), strict=True):
                weight.copy_(balanced)


def _balanced(weights: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Return balanced matrices; the largest singular value is the geometric mean over `weights`, the smallest ½."""
    rank = min(min(weight.shape) for weight in weights)
    norms = torch.stack([torch.linalg.matrix_norm(weight.double(), ord=2) for weight in weights])
    spread = torch.linspace(1.0, 0.5, rank, dtype=torch.float64)
    singular = norms.log().mean().exp() * spread
    bases = [_orthonormal(weights[0].shape[1], rank, generator)]
    bases += [_orthonormal(weight.shape[0], rank, generator) for weight in weights]
    return [after * singular @ before.T for before, after in pairwise(bases)]


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    basis: Tensor = torch.linalg.qr(drawn).Q
    return basis
