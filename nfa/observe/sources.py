"""From which parameters a tensor is computed."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch.nn as nn
from torch import Tensor


def leaves(weight: Tensor, names: Mapping[int, str]) -> set[str]:
    """Return the names of the parameters that a tensor's autograd graph ends in."""
    found, met, waiting = set(), set(), [weight.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in met:
            continue
        met.add(node)
        found.add(names.get(id(getattr(node, "variable", None)), ""))
        waiting += [after for after, _ in node.next_functions]
    return found - {""}


class Sources:
    """Follow what is computed from a model's tensors alone, and from which of its parameters.

    These include the frozen and the detached ones, which the autograd graph leaves out.
    """

    def __init__(self, model: nn.Module) -> None:
        held = [one for module in model.modules() for one in [*module.buffers(recurse=False), *vars(module).values()]]
        self._found = {id(one): (one, set[str]()) for one in held if isinstance(one, Tensor)}
        self._found |= {id(one): (one, {name}) for name, one in model.named_parameters()}

    def follow(self, given: Iterable[Any], output: Any) -> None:
        """Take note of a function's output if nothing but the model's own tensors was given to it."""
        parts = [one for value in given for one in (value if isinstance(value, list | tuple) else [value])]
        known = [self._found.get(id(one)) for one in parts if isinstance(one, Tensor)]
        if isinstance(output, Tensor) and None not in known:
            self._found[id(output)] = output, set().union(*(one[1] for one in known if one))

    def of(self, tensor: Tensor) -> set[str]:
        """Return the names of the parameters from which a tensor was computed."""
        return self._found.get(id(tensor), (tensor, set[str]()))[1]
