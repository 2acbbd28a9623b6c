"""Other values for the parameters that are zero, so that a check sees what is behind them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import torch
import torch.nn as nn
from torch import Tensor

from nfa.seeding import generator

T = TypeVar("T")
TINY = 0.01  # relative to the size of usual weights
FIRST = 64  # as many entries tell most parameters from zero
VECTOR = 0.1  # gates, biases and scales become positive, because a logarithm or a root of them may be taken


@contextmanager
def moved(model: nn.Module, *, frozen: bool = True) -> Iterator[bool]:
    """Give parameters whose entries are all zero, or tiny, random values in the block, and restore them bitwise.

    Tells whether there are any; `frozen` says whether frozen parameters are among them.

    An adapter, a gate or a projection that starts at zero has no effect yet, so at the start of a training the outputs
    of a model do not show what it is made of; and what a check finds there must hold until the end. Versions of tensors
    do not change, so gradients can still be computed from an earlier forward pass.
    """
    random = generator(0, "moved")
    plain = [one for one in model.parameters() if _is_plain(one) and (frozen or one.requires_grad)]
    hidden = [one for one in plain if _is_tiny(one.data)]
    before = [one.data.clone() for one in hidden]
    try:
        _replace(hidden, (_usual(one, random) for one in hidden))
        yield bool(hidden)
    finally:
        _replace(hidden, before)


def _replace(parameters: Sequence[nn.Parameter], values: Iterable[Tensor]) -> None:
    for one, value in zip(parameters, values, strict=True):
        one.data.copy_(value)
    if parameters:
        torch.clear_autocast_cache()  # a model that turns autocast on itself would compute with the values of before


def seen_moved(model: nn.Module, check: Callable[[bool], T]) -> T:
    """Return what a check sees of a model with moved parameters, or as it is if it computes with no other values.

    The check is told whether parameters are moved, and raises then for what is not finite.
    """
    with suppress(Exception), moved(model) as changed:  # whatever the model raises for values that are not its own
        return check(changed)
    return check(False)


def expect_finite(outputs: Tensor, changed: bool) -> None:
    """Raise ArithmeticError for outputs that are not finite where parameters are moved."""
    if changed and not bool(outputs.isfinite().all()):
        raise ArithmeticError


def _is_plain(one: nn.Parameter) -> bool:
    return type(one) is nn.Parameter and one.is_floating_point() and not one.is_inference() and one.numel() > 0


def _is_tiny(values: Tensor) -> bool:
    most = TINY * _size(values)
    return all(bool(some.abs().max() <= most) for some in (values.reshape(-1)[:FIRST], values))


def _size(values: Tensor) -> float:
    """Return how large an entry usually is: a matrix keeps the size of what it multiplies."""
    return float(values[0].numel() ** -0.5) if values.ndim > 1 else VECTOR


def _usual(values: Tensor, random: torch.Generator) -> Tensor:
    if values.ndim > 1:
        return torch.randn(values.shape, generator=random) * _size(values)
    return (torch.rand(values.shape, generator=random) + 0.5) * VECTOR
