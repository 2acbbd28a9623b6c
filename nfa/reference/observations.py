"""Inputs, outputs and gradients of every linear map of a model, one example at a time, for any workload."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from nfa.reference.gradients import PerExample


@dataclass(frozen=True)
class Observation:
    """One example at one site, at each of its positions.

    Args:
        h: The inputs [s, i].
        z: The outputs z = W h (+ b) [s, o].
        delta: The loss gradients δ = ∂ℓ/∂z [s, o].
        K: The output gradients K_k = ∂f_k/∂z [s, k, o].
    """

    h: Float[Tensor, "s i"]
    z: Float[Tensor, "s o"]
    delta: Float[Tensor, "s o"]
    K: Float[Tensor, "s k o"]


def observations(
    model: nn.Module, workload: PerExample, examples: Sequence[Any], sites: Mapping[str, str]
) -> dict[str, list[Observation]]:
    """Return one `Observation` per example for each site that any of them calls; f is `workload.outputs`, flattened.

    Calls of one module in a forward pass are concatenated along s; an example that does not call it has no positions.
    Everything is computed in float64 and evaluation mode.

    Args:
        model: The model.
        workload: The workload that computes outputs and losses.
        examples: Batches of one example each, which may differ in length.
        sites: The paths of nn.Linear modules by name.

    Returns:
        The observations by name.
    """
    model = copy.deepcopy(model).double().eval().requires_grad_(False)
    found: dict[str, list[Observation]] = {name: [] for name in sites}
    for example in examples:
        for name, observation in _observed(model, workload, example, sites).items():
            found[name].append(observation)
    return {name: each for name, each in found.items() if any(len(one.h) for one in each)}


@dataclass(frozen=True)
class _Call:
    """A call of a site; `moved` is a zero that was added to its output."""

    site: str
    h: Tensor
    z: Tensor
    moved: Tensor


def _observed(model: nn.Module, workload: PerExample, example: Any, sites: Mapping[str, str]) -> dict[str, Observation]:
    with _heard(model, sites) as calls, torch.enable_grad():
        outputs = workload.outputs(model, example)
        loss = workload.losses(outputs, example).squeeze()
    zeros = [call.moved for call in calls]
    delta = _gradients(loss, zeros)
    K = [_gradients(output, zeros) for output in outputs.flatten()]
    return {name: _joined(model.get_submodule(path), name, calls, delta, K) for name, path in sites.items()}


def _joined(site: nn.Module, name: str, calls: list[_Call], delta: list[Tensor], K: list[list[Tensor]]) -> Observation:
    outputs, inputs = site.get_parameter("weight").shape
    own = [place for place, call in enumerate(calls) if call.site == name]

    def rows(parts: list[Tensor], features: int) -> Float[Tensor, "s f"]:
        nothing = torch.zeros(0, features, dtype=torch.float64)
        return torch.cat([nothing, *(parts[place].reshape(-1, features) for place in own)])

    return Observation(
        rows([call.h for call in calls], inputs),
        rows([call.z for call in calls], outputs),
        rows(delta, outputs),
        torch.stack([rows(of_output, outputs) for of_output in K], dim=1),
    )


@contextmanager
def _heard(model: nn.Module, sites: Mapping[str, str]) -> Iterator[list[_Call]]:
    """Record every call of a site in the block."""
    calls: list[_Call] = []

    def hear(site: str, args: Any, named: Any, z: Tensor) -> Tensor:
        moved = torch.zeros_like(z, requires_grad=True)
        calls.append(_Call(site, (*args, *named.values())[0].detach().clone(), z.detach().clone(), moved))
        return z + moved

    with ExitStack() as hooks:
        for name, path in sites.items():
            handle = model.get_submodule(path).register_forward_hook(
                lambda _module, args, named, z, name=name: hear(name, args, named, z), with_kwargs=True
            )
            hooks.callback(handle.remove)
        yield calls


def _gradients(value: Tensor, zeros: list[Tensor]) -> list[Tensor]:
    """Return ∂value/∂z at each call; 0 where the value does not depend on it."""
    if not value.requires_grad:
        return [torch.zeros_like(zero) for zero in zeros]
    found = torch.autograd.grad(value, zeros, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(zero) if part is None else part for part, zero in zip(found, zeros, strict=True)]
