"""What a Gram matrix of per-example gradients takes at least: passes, and multiply-adds at the rate of products."""

import time
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from benchmarks.networks import Examples, losses
from benchmarks.record import gemm_rate

LAYERS = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm, nn.Embedding)


def floor_parts(model: nn.Module, examples: Examples, rounds: int = 3) -> dict[str, float]:
    """CPU seconds of a forward pass and a backward pass to the layers' outputs, and of γ and one triangle of the Gram
    matrix in the form with the fewest multiply-adds, where pairs of factors count as products.
    """
    n = len(examples.inputs)
    counts = [_multiply_adds(layer, h, z, n) for layer, h, z in _layers(model, examples)]
    written, products = (2 * n * sum(of) / gemm_rate() for of in zip(*counts, strict=True))
    passes = min(_seconds(lambda: _passes(model, examples)) for _ in range(rounds + 1))
    return {
        "forward and backward pass": passes,
        "γ of layers, norms and biases": written,
        "products": products,
    }


def _seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _passes(model: nn.Module, examples: Examples, size: int = 32) -> None:
    """Forward, and backward to the outputs of the layers, without gradients of weights."""
    outputs: list[Tensor] = []
    keep = [
        layer.register_forward_hook(lambda _layer, _inputs, output: outputs.append(output))
        for layer in model.modules()
        if isinstance(layer, LAYERS)
    ]
    for start in range(0, len(examples.inputs), size):
        part = slice(start, start + size)
        total = losses(model(examples.inputs[part]), examples.targets[part]).sum()
        torch.autograd.grad(total, outputs, allow_unused=True)
        outputs.clear()
    for hook in keep:
        hook.remove()


def _layers(model: nn.Module, examples: Examples) -> Iterator[tuple[nn.Module, Tensor, Tensor]]:
    """Yield the layers with a matrix, and the sizes of their inputs and outputs for one example."""
    found: list[tuple[nn.Module, Tensor, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output: found.append((layer, inputs[0][0], output[0])))
        for layer in model.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    with torch.no_grad():
        model(examples.inputs[:1])
    for hook in hooks:
        hook.remove()
    yield from found


def _multiply_adds(layer: nn.Module, h: Tensor, z: Tensor, n: int) -> tuple[float, float]:
    """Multiply-adds of γ and of products for each example of n, in the cheapest of the ways."""
    if isinstance(layer, nn.Conv2d):
        (i, *size), (o, *out) = h.shape, z.shape
        s, t, q = prod(out), prod(size), layer.weight[0].numel()
        pixels = [n * (s * s * o + t * t * i) / 2] if set(layer.stride) == {1} else []
    else:
        o, q, s, pixels = z.shape[-1], h.shape[-1], prod(z.shape[:-1]), []
    ways = [(s * o * q, n * o * q / 2), (0.0, n * s * s * (o + q) / 2), *((0.0, of) for of in pixels)]
    return min(ways, key=sum)
