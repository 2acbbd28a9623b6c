"""How much of a model is watched, in one line."""

from collections.abc import Collection, Iterable, Mapping

import torch.nn as nn
from torch import Tensor

SHOWN = 4  # names of what is not seen


def coverage(model: nn.Module, seen: Collection[str]) -> str:
    """Weights of a model that are among parameters `seen`, and which layers' are not.

    >>> coverage(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)), {"0.weight", "0.bias"})
    'watching 8 of 12 weights (67 %); not seen: 1'
    """
    parameters = dict(model.named_parameters())
    total = sum(parameter.numel() for parameter in parameters.values())
    watched = sum(parameter.numel() for name, parameter in parameters.items() if name in seen)
    share = 100 * watched / max(1, total)
    share = share if watched in (0, total) else min(99, max(1, share))  # "100 %" is all, and "0 %" nothing
    layers = {_layer(name) for name in parameters if name in seen}
    names = [name if _layer(name) in layers else _layer(name) for name in parameters if name not in seen]
    missing = f"; not seen: {_some(dict.fromkeys(names))}" if names else ""
    return f"watching {watched:,} of {total:,} weights ({share:.0f} %){missing}"


def _layer(name: str) -> str:
    return name.removesuffix(".weight").removesuffix(".bias")


def _some(names: Iterable[str]) -> str:
    found = list(names)
    more = len(found) - SHOWN
    return ", ".join(found[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def leaves(weight: Tensor, names: Mapping[int, str]) -> set[str]:
    """Names of the parameters that a tensor was computed from."""
    found, met, waiting = set(), set(), [weight.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in met:
            continue
        met.add(node)
        found.add(names.get(id(getattr(node, "variable", None)), ""))
        waiting += [after for after, _ in node.next_functions]
    return found - {""}
