"""How each layer type is read as one linear map z = W h + b, in the one layout [n s i] → [n s o]."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from nfa.errors import Refusal


@dataclass(frozen=True)
class Rule:
    """Reads a layer: `inputs` of its first argument, `outputs` of anything shaped like its output, `weight` [o i]."""

    inputs: Callable[[Any, Tensor], Float[Tensor, "n s i"]]
    outputs: Callable[[Any, Tensor], Float[Tensor, "n s o"]]
    weight: Callable[[Any], Float[Tensor, "o i"]]


def _positions(_module: nn.Module, tensor: Tensor) -> Float[Tensor, "n s f"]:
    return tensor.reshape(tensor.shape[0], -1, tensor.shape[-1])


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: Rule(inputs=_positions, outputs=_positions, weight=lambda module: module.weight.detach()),
}


def rule_for(name: str, module: nn.Module) -> Rule:
    """The rule of a module's type; `Refusal` where there is none."""
    for kind in type(module).__mro__:
        if kind in RULES:
            return RULES[kind]
    known = ", ".join(kind.__name__ for kind in RULES)
    raise Refusal(
        f"site {name!r} of type {type(module).__name__}",
        known,
        "leave the site out, or add a rule to nfa/observe/rules.py",
    )
