"""Inputs and outputs of a site, and derivatives with respect to them, one example at a time."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def jacobians(model: nn.Module, site: str, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n s k i"]:
    """Return J = ∂f/∂h, with f = model(x) flattened and h the site's input: J[n, s, k] = ∂f_k(h + ε)/∂ε_s at ε = 0.

    It is computed by reverse differentiation (torch.func.jacrev) with respect to an ε added to h.

    Args:
        model: The model.
        site: The path of the site.
        inputs: The examples x [n, …].

    Returns:
        The Jacobians [n, s, k, i].

    Raises:
        ValueError: The forward pass never calls the site.
        AttributeError: The model has no such module.
    """
    model = _double(model)
    return torch.stack([_jacobian(model, site, example) for example in inputs.double()])


def loss_gradients(
    model: nn.Module, site: str, inputs: Float[Tensor, "n ..."], targets: Tensor, loss: Loss
) -> Float[Tensor, "n s o"]:
    """Return δ = ∂ℓ/∂z of each example's own loss ℓ = loss(model(x), y), with z the site's output.

    It is computed by torch.func.grad with respect to an ε added to z.

    Args:
        model: The model.
        site: The path of the site.
        inputs: The examples x [n, …].
        targets: The targets y [n, …].
        loss: A function of the outputs [1, …] and targets [1, …] of one example whose value has one entry.

    Returns:
        The gradients [n, s, o].

    Raises:
        ValueError: The forward pass never calls the site.
        AttributeError: The model has no such module.
    """
    model = _double(model)
    pairs = zip(inputs.double(), targets, strict=True)
    return torch.stack([_loss_gradient(model, site, x, y, loss) for x, y in pairs])


def site_inputs(model: nn.Module, site: str, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n s i"]:
    """Return the site's inputs h, one example at a time.

    Args:
        model: The model.
        site: The path of the site.
        inputs: The examples x [n, …].

    Returns:
        The inputs [n, s, i].

    Raises:
        ValueError: The forward pass never calls the site.
        AttributeError: The model has no such module.
    """
    model = _double(model)
    return torch.stack([torch.cat([_rows(h) for h, _ in _calls(model, site, x)]) for x in inputs.double()])


def site_outputs(model: nn.Module, site: str, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n s o"]:
    """Return the site's outputs z, including the bias, one example at a time.

    Args:
        model: The model.
        site: The path of the site.
        inputs: The examples x [n, …].

    Returns:
        The outputs [n, s, o].

    Raises:
        ValueError: The forward pass never calls the site.
        AttributeError: The model has no such module.
    """
    model = _double(model)
    return torch.stack([torch.cat([_rows(z) for _, z in _calls(model, site, x)]) for x in inputs.double()])


def _double(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double().eval().requires_grad_(False)


def _jacobian(model: nn.Module, site: str, example: Tensor) -> Float[Tensor, "s k i"]:
    def outputs(offsets: list[Tensor]) -> Tensor:
        with _inputs_moved_by(model.get_submodule(site), offsets):
            result: Tensor = model(example[None])
        return result.flatten()

    calls = torch.func.jacrev(outputs)([torch.zeros_like(h) for h, _ in _calls(model, site, example)])
    return torch.cat([J.reshape(J.shape[0], -1, J.shape[-1]) for J in calls], dim=1).transpose(0, 1)


def _loss_gradient(model: nn.Module, site: str, example: Tensor, target: Tensor, loss: Loss) -> Float[Tensor, "s o"]:
    def value(offsets: list[Tensor]) -> Tensor:
        with _outputs_moved_by(model.get_submodule(site), offsets):
            return loss(model(example[None]), target[None]).squeeze()

    calls = torch.func.grad(value)([torch.zeros_like(z) for _, z in _calls(model, site, example)])
    return torch.cat([delta.reshape(-1, delta.shape[-1]) for delta in calls])


def _rows(x: Float[Tensor, "... f"]) -> Float[Tensor, "s f"]:
    return x.reshape(-1, x.shape[-1])


def _calls(model: nn.Module, site: str, example: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return input and output of each call of the site in a forward pass of one example."""
    calls: list[tuple[Tensor, Tensor]] = []

    def keep(_module: nn.Module, args: Any, named: Any, z: Tensor) -> None:
        calls.append(((*args, *named.values())[0].clone(), z.clone()))  # the model may edit them in place afterwards

    with _removed_afterwards(model.get_submodule(site).register_forward_hook(keep, with_kwargs=True)):
        model(example[None])
    if not calls:
        raise ValueError(f"the forward pass never calls {site!r}")
    return calls


@contextmanager
def _inputs_moved_by(module: nn.Module, offsets: list[Tensor]) -> Iterator[None]:
    """Replace h by h + ε in the block, with one ε for each call."""
    remaining = iter(offsets)

    def move(_module: nn.Module, args: Any, named: Any) -> tuple[Any, Any]:
        return ((*args, *named.values())[0] + next(remaining),), {}

    with _removed_afterwards(module.register_forward_pre_hook(move, with_kwargs=True)):
        yield


@contextmanager
def _outputs_moved_by(module: nn.Module, offsets: list[Tensor]) -> Iterator[None]:
    """Replace z by z + ε in the block, with one ε for each call."""
    remaining = iter(offsets)
    handle = module.register_forward_hook(lambda _module, _args, z: z + next(remaining))
    with _removed_afterwards(handle):
        yield


@contextmanager
def _removed_afterwards(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
