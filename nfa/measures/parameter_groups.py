"""Groups of parameters: how large their gradients are, how far they have moved."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn as nn
from torch import Tensor


def norm(tensors: Iterable[Tensor]) -> float:
    """‖·‖₂ of all entries together, added up in float64; not finite where an entry is not."""
    return math.sqrt(sum(float(_real(tensor.detach()).double().square().sum()) for tensor in tensors))


def _real(tensor: Tensor) -> Tensor:
    """The real numbers that complex ones are made of."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float | None:
    """‖g‖₂ over all parameters; None where there is no gradient or it is not finite."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return _finite(norm(gradients)) if gradients else None


def root_mean_squares(groups: Mapping[str, Sequence[str]], gradients: Mapping[str, Tensor]) -> dict[str, float]:
    """√(mean over a group's parameters of g²): independent of how many there are. Not finite: left out."""
    found = {}
    for group, names in groups.items():
        count = sum(gradients[name].numel() for name in names)
        value = _finite(norm(gradients[name] for name in names))
        if count and value is not None:
            found[group] = value / count**0.5
    return found


def relative_changes(
    groups: Mapping[str, Sequence[str]], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> dict[str, float]:
    """‖θ_after − θ_before‖ / ‖θ_before‖ of each group; left out where that is undefined."""
    found = {}
    for group, names in groups.items():
        start = norm(before[name] for name in names)
        moved = _finite(norm(after[name].detach().to(before[name]) - before[name] for name in names))
        if start and moved is not None and _finite(moved / start) is not None:
            found[group] = moved / start
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
