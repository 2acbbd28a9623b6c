"""Arithmetic cost of a training."""

from collections.abc import Iterable, Mapping

import torch.nn as nn

from nfa.bookkeeping import FLOPS
from nfa.maths.svd_flops import flops_of_matrix

OPERATIONS = ("compute/flops", FLOPS)  # keys of the operations of a run; the first is that of nfa 0.6


def training_operations(model: nn.Module, positions: int) -> float:
    """Return floating-point operations of forward and backward passes over `positions` tokens, including padding.

    Each weight of a linear map costs 2 operations per token forward, 2 for the gradient of its input, and 2 more
    for its own gradient if trained (Kaplan et al. 2020, arXiv 2001.08361, section 2.1). Attention scores and nonlinear
    operations are not counted, and logits are counted at all positions.
    """
    frozen = trained = 0
    for layer in model.modules():
        if isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D":
            weight = layer.get_parameter("weight")
            trained += weight.numel() * weight.requires_grad
            frozen += weight.numel() * (not weight.requires_grad)
    return float(positions) * (4.0 * frozen + 6.0 * trained)


def operations_by_step(series: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """Return the operations that a run has logged; nfa 0.6 logged them as `compute/flops`."""
    return {step: value for key in OPERATIONS for step, value in series.get(key, {}).items()}


def start_operations(init: str, shapes: Iterable[tuple[int, int]]) -> float:
    """Return floating-point operations of an initial adapter that is computed from the base weights [o i], else 0.

    pissa: a full SVD of each weight, 6 max·min² + 20 min³; olora: a QR with its basis, about 4 o i min(o, i).
    """
    if init == "pissa":
        return float(sum(flops_of_matrix(shape, min(shape), 0, 0) for shape in shapes))
    return float(sum(4 * o * i * min(o, i) for o, i in shapes)) if init == "olora" else 0.0
