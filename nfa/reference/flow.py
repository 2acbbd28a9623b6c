"""The size of a part's gradient and how far it has moved, one example and one number at a time."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nfa.reference.gradients import Examples, PerExample


def mean_gradients(
    model: nn.Module, workload: PerExample, batch: Examples, losses: Callable[[Tensor, Any], Tensor] | None = None
) -> dict[str, Tensor]:
    """Return (1/n) Σ_a ∂ℓ_a/∂θ of every trainable parameter, in evaluation mode.

    Args:
        model: The model.
        workload: The workload that computes outputs and losses.
        batch: The examples.
        losses: A function of outputs and batch that replaces `workload.losses`.

    Returns:
        The gradient by parameter name; 0 where no loss depends on a parameter.
    """
    model = copy.deepcopy(model).double().eval()
    for place in range(len(batch)):
        example = batch.double().take([place])
        loss = (losses or workload.losses)(workload.outputs(model, example), example).squeeze() / len(batch)
        if loss.requires_grad:
            loss.backward()  # gradients add up in .grad
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in trained.items()}


def root_mean_square(tensors: Sequence[Tensor]) -> float:
    """Return √(mean of x² over all entries).

    Args:
        tensors: Tensors of any shape.

    Returns:
        The root mean square.

    Raises:
        ValueError: There are no entries.

    Example:
        >>> root_mean_square([torch.tensor([1.0, 7.0]), torch.tensor([[5.0]])])
        5.0
    """
    entries = _entries(tensors)
    if not entries:
        raise ValueError("the mean of no entries is undefined")
    return math.sqrt(sum(entry * entry for entry in entries) / len(entries))


def relative_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return ‖θ_after − θ_before‖ / ‖θ_before‖ of all entries together.

    Args:
        before: The earlier tensors.
        after: The later tensors.

    Returns:
        The relative change.

    Raises:
        ValueError: All of θ_before is 0.

    Example:
        >>> relative_change([torch.tensor([3.0]), torch.tensor([4.0])], [torch.tensor([3.0]), torch.tensor([6.5])])
        0.5
    """
    start, end = _entries(before), _entries(after)
    size = math.sqrt(sum(entry * entry for entry in start))
    if size == 0:
        raise ValueError("a change relative to 0 is undefined")
    return math.sqrt(sum((b - a) ** 2 for a, b in zip(start, end, strict=True))) / size


def _entries(tensors: Sequence[Tensor]) -> list[float]:
    return [float(entry) for tensor in tensors for entry in tensor.detach().double().flatten().tolist()]
