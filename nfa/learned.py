"""What training changes in a model: everything except its frozen parameters."""

from collections.abc import Collection, Mapping

import torch
import torch.nn as nn
from torch import Tensor

from nfa.errors import Refusal


def learned_state(model: nn.Module, frozen: Collection[str] | None = None) -> dict[str, Tensor]:
    """Return the entries of `model.state_dict()` that are not frozen parameters.

    `frozen` names the parameters that were frozen from the beginning, in a training that freezes others on its way.
    """
    frozen = frozen_names(model) if frozen is None else frozen
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def load_learned(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a `learned_state`; RuntimeError where names, shapes or types are not the model's."""
    own = model.state_dict()
    if cast := [name for name in state if name in own and state[name].dtype != own[name].dtype]:
        types = f"{cast[0]} is {state[cast[0]].dtype}, but {own[cast[0]].dtype} in the model"
        raise RuntimeError(f"weights of a different type: {types}")
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = sorted(set(missing) - frozen_names(model))
    if missing or unexpected:
        raise RuntimeError(f"weights of a different model: missing {missing}, unexpected {list(unexpected)}")


def check_storable(model: nn.Module, what: str, remedy: str) -> None:
    """Raise `Refusal` if the state contains anything but dense tensors, which are all that a checkpoint can store."""
    for name, value in learned_state(model).items():
        if isinstance(value, Tensor) and value.layout is torch.strided:
            continue
        kind = "a sparse tensor" if isinstance(value, Tensor) else "not a tensor"
        got, also = f"{what} whose state has {name}, which is {kind}", "register_buffer(…, persistent=False)"
        raise Refusal(got, "a state_dict of dense tensors", f"{remedy}, or keep it out of the state: {also}")


def frozen_names(model: nn.Module) -> set[str]:
    """Return the names of the parameters that no optimizer updates."""
    named = model.named_parameters(remove_duplicate=False)  # tied weights have several names
    return {name for name, weight in named if not weight.requires_grad}
