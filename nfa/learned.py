"""What a training changes in a model: everything but its frozen parameters."""

from collections.abc import Collection, Mapping

import torch.nn as nn
from torch import Tensor


def learned_state(model: nn.Module, frozen: Collection[str] | None = None) -> dict[str, Tensor]:
    """The entries of `model.state_dict()` that are no frozen parameter.

    `frozen`: those that were frozen from the beginning, in a loop that may freeze others on its way.
    """
    frozen = frozen_names(model) if frozen is None else frozen
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def load_learned(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Take up a `learned_state`; RuntimeError for other names, shapes and types than the model's."""
    own = model.state_dict()
    if cast := [name for name in state if name in own and state[name].dtype != own[name].dtype]:
        raise RuntimeError(f"weights of another type: {cast[0]} is {state[cast[0]].dtype}, not {own[cast[0]].dtype}")
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = sorted(set(missing) - frozen_names(model))
    if missing or unexpected:
        raise RuntimeError(f"weights of another model: missing {missing}, unexpected {list(unexpected)}")


def frozen_names(model: nn.Module) -> set[str]:
    """The parameters that no optimizer moves."""
    named = model.named_parameters(remove_duplicate=False)  # tied weights have several names
    return {name for name, weight in named if not weight.requires_grad}
