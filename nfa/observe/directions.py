"""Which combinations of a network's outputs are differentiated."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int8
from torch import Tensor


@dataclass(frozen=True)
class Directions:
    """Every output alone (`count` = 0), or `count` random ±1 combinations, drawn anew for each example.

    Over the draws E[(Σ_k v_k K_k)ᵀ (Σ_k v_k K_k)] = Σ_k K_kᵀ K_k, so each direction gives an unbiased estimate of AGOP
    (the estimator of Hutchinson 1989). The signs depend only on `seed` and the example's id, not on batches, the epoch
    or the number of outputs.
    """

    count: int = 0
    seed: int = 0

    def cotangents(self, outputs: Tensor, ids: Tensor) -> Iterator[Tensor]:
        """Yield one tensor shaped like `outputs` [n, …] for each backward pass."""
        n, size = len(outputs), outputs[0].numel()
        if self.count:
            drawn = torch.from_numpy(signs(ids.cpu().numpy(), self.count, size, self.seed))
            for direction in range(self.count):
                yield drawn[:, direction].to(outputs).view(outputs.shape)
            return
        for direction in range(size):
            onehot = outputs.new_zeros(n, size)
            onehot[:, direction] = 1
            yield onehot.view(outputs.shape)

    def passes(self, outputs: Tensor) -> int:
        """Return the number of backward passes."""
        return self.count or outputs[0].numel()


def signs(ids: np.ndarray, count: int, size: int, seed: int) -> Int8[np.ndarray, "n count size"]:
    """Return ±1 by example id, direction and output: the top bit of SplitMix64 (Steele, Lea and Flood 2014) at a
    counter.

    The counter is direction · 2⁴⁰ + output + 1.
    """
    with np.errstate(over="ignore"):
        first = _mixed(np.uint64(seed % 2**64) + _GAMMA * (ids.astype(np.uint64) + np.uint64(1)))
        place = np.uint64(_APART) * np.arange(count, dtype=np.uint64)[:, None] + np.arange(1, size + 1, dtype=np.uint64)
        bits = _mixed(first[:, None, None] + _GAMMA * place) >> np.uint64(63)
    return (2 * bits.astype(np.int8) - 1).astype(np.int8)


_APART = 2**40  # more than any number of outputs
_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mixed(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = z ^ (z >> np.uint64(31))
    return mixed
