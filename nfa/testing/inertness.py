"""Whether watching changes anything: the state of model and generators, and a training, bit by bit."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from nfa import seeding
from nfa.workload import Workload

STEPS = 3
RATE, MOMENTUM = 0.2, 0.9
Watch = Callable[[nn.Module], Any]
State = dict[str, Any]


class TrainedModel(NamedTuple):
    """A model, and the state of the model and the generators at the end of its training."""

    model: nn.Module
    state: State


def state(model: nn.Module) -> State:
    """Return everything that watching might disturb, by a readable name.

    Args:
        model: The model.

    Returns:
        The state by name.
    """
    numpy = np.random.get_state(legacy=False)["state"]
    found: State = {"generator of PyTorch": torch.get_rng_state()}
    found["generator of NumPy"] = [*numpy["key"].tolist(), numpy["pos"]]
    for name, weight in model.named_parameters():
        found[f"parameter {name}"] = weight.detach().clone()
        found[f"whether {name} is trained"] = weight.requires_grad
        found[f"gradient of {name}"] = None if weight.grad is None else weight.grad.clone()
    for name, buffer in model.named_buffers():
        found[f"buffer {name}"] = buffer.clone()
    for name, module in model.named_modules():
        found[f"mode of {name or 'the model'}"] = module.training
        found[f"hooks of {name or 'the model'}"] = len(module._forward_hooks), len(module._forward_pre_hooks)
    return found


def differing(before: State, after: State) -> list[str]:
    """Return the names of everything that is not bitwise the same.

    Args:
        before: The earlier state.
        after: The later state.

    Returns:
        The names that differ.
    """
    return [name for name in {**before, **after} if not _same(before.get(name), after.get(name))]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return bool(type(a) is type(b) and a == b)


def trained(workload: Workload, model: nn.Module, ids: Sequence[int], watch: Watch | None = None) -> TrainedModel:
    """Train a copy of the model by a few steps of SGD from a fixed seed, and restore the generators.

    Args:
        workload: The workload that computes the losses.
        model: The model, which is not changed.
        ids: The ids of the examples of the one batch.
        watch: A function of the model that is called before each step and after the last one.

    Returns:
        The trained copy and the final state.
    """
    model = copy.deepcopy(model).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=RATE, momentum=MOMENTUM)
    batch = next(workload.batches("train", batch_size=len(ids), ids=ids))
    with seeding.untouched():
        torch.manual_seed(0)
        for _ in range(STEPS):
            if watch:
                watch(model)
            optimizer.zero_grad()
            workload.losses(workload.outputs(model, batch), batch).mean().backward()
            optimizer.step()
        if watch:
            watch(model)
        return TrainedModel(model, state(model))
