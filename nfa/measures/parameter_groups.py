"""Groups of parameters: how large their gradients are and how far they have moved."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn as nn
from torch import Tensor


def norm(tensors: Iterable[Tensor]) -> float:
    """Return the 2-norm of all entries together, accumulated in float64.

    Args:
        tensors: Tensors of any shape; complex ones count as their real and imaginary parts.

    Returns:
        The norm; it is not finite if an entry is not.
    """
    return math.sqrt(sum(float(_real(tensor.detach()).double().square().sum()) for tensor in tensors))


def _real(tensor: Tensor) -> Tensor:
    """View a complex tensor as real numbers."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float | None:
    """Return the 2-norm of the gradients of all parameters.

    Args:
        parameters: The parameters; those without a gradient are skipped.

    Returns:
        The norm; None where there is no gradient or it is not finite.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return _finite(norm(gradients)) if gradients else None


def root_mean_squares(groups: Mapping[str, Sequence[str]], gradients: Mapping[str, Tensor]) -> dict[str, float]:
    """Return √(mean of g² over a group's entries), which does not depend on the size of the group.

    Args:
        groups: The names of the parameters in each group.
        gradients: The gradient g by parameter name.

    Returns:
        The root mean square by group; a group is absent if its value is not finite.
    """
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
    """Return ‖θ_after − θ_before‖ / ‖θ_before‖ of each group.

    Args:
        groups: The names of the parameters in each group.
        before: The earlier weights by name.
        after: The later weights by name.

    Returns:
        The relative change by group; a group is absent where it is undefined.
    """
    found = {}
    for group, names in groups.items():
        start = norm(before[name] for name in names)
        moved = _finite(norm(after[name].detach().to(before[name]) - before[name] for name in names))
        if start and moved is not None and _finite(moved / start) is not None:
            found[group] = moved / start
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
