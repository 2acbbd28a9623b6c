"""What a user would write instead. These are kept as they are and not retuned when the project gets faster."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, jacrev, vmap


def agop_vmap_jacrev(weights: Sequence[Tensor], inputs: Tensor, *, chunk: int = 128) -> list[Tensor]:
    """AGOP of every layer but the readout: vmap(jacrev) of the rest of the network, then einsum nki,nkj->ij."""
    totals = [weight.new_zeros(weight.shape[1], weight.shape[1]) for weight in weights[:-1]]
    for part in inputs.split(chunk):
        hidden = part
        for layer, total in enumerate(totals):
            jacobian = vmap(jacrev(_rest(weights, layer)))(hidden)
            total += torch.einsum("nki,nkj->ij", jacobian, jacobian)
            hidden = torch.relu(F.linear(hidden, weights[layer]))
    return [total / len(inputs) for total in totals]


def _rest(weights: Sequence[Tensor], layer: int) -> Callable[[Tensor], Tensor]:
    def rest(hidden: Tensor) -> Tensor:
        for weight in weights[layer:-1]:
            hidden = torch.relu(F.linear(hidden, weight))
        return F.linear(hidden, weights[-1])

    return rest


def gradient_moments(weights: Sequence[Tensor], inputs: Tensor, targets: Tensor, *, chunk: int = 128) -> list[Tensor]:
    """G = E[g gᵀ] of every layer but the readout: a pass for each, per-example gradients by vmap(grad)."""
    found = []
    for layer in range(len(weights) - 1):
        rest = _rest(weights, layer)

        def loss(h: Tensor, y: Tensor, rest: Callable[[Tensor], Tensor] = rest) -> Tensor:
            return F.mse_loss(rest(h), y)

        total = weights[layer].new_zeros(weights[layer].shape[1], weights[layer].shape[1])
        for part, y in zip(inputs.split(chunk), targets.split(chunk), strict=True):
            g = vmap(grad(loss))(_hidden(weights, layer, part), y)
            total += g.T @ g
        found.append(total / len(inputs))
    return found


def input_moments(weights: Sequence[Tensor], inputs: Tensor, *, chunk: int = 128) -> list[Tensor]:
    """H = E[h hᵀ] of every layer but the readout, a pass for each."""
    found = []
    for layer in range(len(weights) - 1):
        total = weights[layer].new_zeros(weights[layer].shape[1], weights[layer].shape[1])
        for part in inputs.split(chunk):
            h = _hidden(weights, layer, part)
            total += h.T @ h
        found.append(total / len(inputs))
    return found


def gram_vmap_grad(
    model: torch.nn.Module, losses: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, targets: Tensor
) -> Tensor:
    """Gram matrix of per-example gradients of all parameters: vmap(grad) of all examples at once, and a product."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return losses(functional_call(model, values, (x.unsqueeze(0),)), y.unsqueeze(0))[0]

    total = inputs.new_zeros(len(inputs), len(inputs), dtype=next(model.parameters()).dtype)
    for gradients in vmap(grad(loss), in_dims=(None, 0, 0))(parameters, inputs, targets).values():
        total += gradients.flatten(1) @ gradients.flatten(1).T
    return total


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two dense matrices."""
    return float((a * b).sum() / a.norm() / b.norm())


def _hidden(weights: Sequence[Tensor], layer: int, inputs: Tensor) -> Tensor:
    for weight in weights[:layer]:
        inputs = torch.relu(F.linear(inputs, weight))
    return inputs


def train_epoch(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, onehot: Tensor, batch_size: int
) -> None:
    """One epoch of a bare PyTorch loop over tensors in memory."""
    model.train()
    for index in torch.randperm(len(images)).split(batch_size):
        loss = F.mse_loss(model(images[index]), onehot[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def validate(model: torch.nn.Module, images: Tensor, onehot: Tensor, batch_size: int) -> tuple[float, float]:
    """Mean loss and accuracy over tensors in memory."""
    model.eval()
    loss = correct = 0.0
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        outputs = model(images[part])
        loss += float(F.mse_loss(outputs, onehot[part], reduction="sum")) / onehot.shape[1]
        correct += float((outputs.argmax(1) == onehot[part].argmax(1)).sum())
    return loss / len(images), correct / len(images)
