"""The slow, general method for per-example gradients of parameters that no rule covers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.func import functional_call, grad, vmap

from nfa.errors import Refusal, reason
from nfa.workload import Batch, Workload

CHUNK = 32  # examples differentiated at a time


class SingleExamples:
    """Compute ∂⟨f(x_a), c_a⟩/∂θ of some parameters θ for each example a by torch.func, in chunks.

    Models that torch.func cannot follow are differentiated one example at a time.
    """

    def __init__(
        self, model: nn.Module, workload: Workload, parameters: Mapping[str, nn.Parameter], *, by_loop: bool
    ) -> None:
        self.wrapped, self.workload = _Outputs(model, workload), workload
        self.parameters = {f"model.{name}": parameter for name, parameter in parameters.items()}
        self.by_loop = by_loop

    def __call__(self, batch: Batch, cotangent: Tensor) -> dict[str, Tensor]:
        """Return one tensor [n, …] for each parameter."""
        if not self.parameters:
            return {}
        found = None if self.by_loop else self._by_vmap(batch, cotangent)
        if found is None:
            self.by_loop = True
            found = self._by_loop(batch, cotangent)
        return {name.removeprefix("model."): values for name, values in found.items()}

    def _by_vmap(self, batch: Batch, cotangent: Tensor) -> dict[str, Tensor] | None:
        leaves = [batch.ids, *_leaves(batch)]
        rows = [0 if leaf.ndim and len(leaf) == len(batch) else None for leaf in leaves]

        def value(parameters: dict[str, Tensor], c: Tensor, *parts: Tensor) -> Tensor:
            single = [part if row is None else part.unsqueeze(0) for part, row in zip(parts, rows, strict=True)]
            outputs: Tensor = functional_call(self.wrapped, parameters, (_with_leaves(batch, iter(single)),))
            return (outputs.reshape(c.shape) * c).sum()  # also if squeeze() has removed the examples' dimension

        start = {name: parameter.detach() for name, parameter in self.parameters.items()}
        mapped = vmap(grad(value), in_dims=(None, 0, *rows), chunk_size=CHUNK)
        try:
            with torch.no_grad():  # `grad` would keep the other parameters in the graph
                found: dict[str, Tensor] = mapped(start, cotangent, *leaves)
        except Exception:  # data-dependent control flow, a function without a batching rule, a conversion to NumPy
            return None
        return found

    def _by_loop(self, batch: Batch, cotangent: Tensor) -> dict[str, Tensor]:
        values, rows = [*self.parameters.values()], []
        for place, c in enumerate(cotangent):
            with torch.enable_grad():
                outputs = self.wrapped(batch.take([place]))
            pairs = zip(gradients(outputs.reshape(c.shape), values, c), values, strict=True)
            rows.append([torch.zeros_like(p) if gradient is None else gradient for gradient, p in pairs])
        return {name: torch.stack(of) for name, of in zip(self.parameters, zip(*rows, strict=True), strict=True)}


def gradients(
    outputs: Tensor | GradientEdge, inputs: Sequence[Any], cotangent: Tensor, *, keep: bool = False
) -> Sequence[Tensor | None]:
    """Return ∂⟨f, c⟩ / ∂(each input); None for an input that f does not depend on. `keep` retains the graph."""
    if not inputs or (isinstance(outputs, Tensor) and not outputs.requires_grad):
        return [None] * len(inputs)
    try:
        return torch.autograd.grad(outputs, inputs, cotangent, allow_unused=True, retain_graph=keep)
    except RuntimeError as error:  # such as an in-place edit of a tensor that the backward pass needs
        got = f"a model that cannot be differentiated in evaluation mode ({reason(error)})"
        remedy = "1. write x = x + y instead of x += y where a layer's input is edited in place; 2. run it without a "
        remedy += "cache: outputs=lambda model, inputs: model(**inputs, use_cache=False).logits"
        raise Refusal(got, "models that autograd can differentiate", remedy) from error


class _Outputs(nn.Module):
    """A workload's outputs as a module, so that its parameters can be replaced."""

    def __init__(self, model: nn.Module, workload: Workload) -> None:
        super().__init__()
        self.model, self.workload = model, workload

    def forward(self, batch: Batch) -> Tensor:
        return self.workload.outputs(self.model, batch)


def _leaves(batch: Batch) -> list[Tensor]:
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    batch.map(keep)
    return found


def _with_leaves(batch: Batch, leaves: Iterator[Tensor]) -> Batch:
    ids = next(leaves)
    filled = batch.map(lambda _: next(leaves))
    return Batch(filled.inputs, filled.targets, ids)
