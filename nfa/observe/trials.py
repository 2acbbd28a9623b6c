"""Random directions in which the gradients of a few examples are tested."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.observe.recording import Use
from nfa.workload import Batch

TOLERANCE = 1e-4  # relative to a parameter's largest entry
PIECE = 2**17  # entries
FAINT = 1e-6  # relative to the largest entry of all; smaller values are rounding errors


@dataclass(frozen=True)
class Trial:
    """Random cotangents c of a few examples' outputs, and ∂ Σ_a w_a ⟨f(x_a), c_a⟩ / ∂θ by autograd for random w.

    A loss may leave some examples without a gradient; with random cotangents every use has an effect.
    """

    batch: Batch
    outputs: Float[Tensor, "n ..."]
    cotangent: Float[Tensor, "n ..."]
    weights: Float[Tensor, " n"]
    expected: Mapping[str, Tensor]
    rounding: float  # relative rounding error of sums in the coarsest type

    def differing(self, totals: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Return the parameters whose Σ_a w_a γ_a differs; each total is needed only until the next."""
        off = {name: (_largest_difference(of, self.expected[name]), tolerance(of)) for name, of in totals}
        largest = {name: _largest(value) for name, value in self.expected.items()}
        faint = FAINT * max(filter(math.isfinite, largest.values()), default=0.0)
        return {
            name
            for name, (difference, relative) in off.items()
            if not difference <= max(relative, self.rounding) * largest[name] + faint
        }


def _largest_difference(a: Tensor, b: Tensor) -> float:
    """Return the largest |a − b|, by pieces whose differences stay in a processor's cache."""
    pairs = zip(a.reshape(-1).split(PIECE), b.reshape(-1).split(PIECE), strict=True)
    return _largest(torch.stack([end for x, y in pairs for end in (x - y).aminmax()])) if a.numel() else 0.0


def _largest(values: Tensor) -> float:
    return max(abs(float(end)) for end in values.aminmax()) if values.numel() else 0.0


def tolerance(values: Tensor) -> float:
    """Return how far two computations of the same values may differ, relative to the largest."""
    return max(TOLERANCE, 16 * torch.finfo(values.dtype).eps)


def strided(gradient: Tensor) -> Tensor:
    """Return a gradient as a dense tensor."""
    return gradient.to_dense() if gradient.is_sparse else gradient


def coarse(uses: Mapping[Any, Sequence[Use]]) -> float:
    """Return the relative rounding error of sums in the coarsest type that occurs."""
    types = {use.output.dtype for of in uses.values() for use in of}
    return max((16 * torch.finfo(one).eps for one in types), default=0.0)
