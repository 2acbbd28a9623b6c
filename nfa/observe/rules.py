"""The list of rules: for every function that uses a parameter, how to compute the parameter's per-example gradients.

A rule is a dataclass whose fields are the arguments of the function. It says which of them may be parameters and
computes their gradients from δ = ∂ℓ/∂(output). Functions that multiply by a weight are in products.py and
convolutions.py, each with a list of its own; here are functions that scale, add and look up. All rules but that of
embeddings sum over positions s; `at` says where the examples are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nfa.errors import Refusal
from nfa.maths.example_gradients import Dense, Part
from nfa.maths.lookup_gradients import Rows
from nfa.observe import convolutions, products
from nfa.observe.convolutions import by_example
from nfa.observe.layouts import Axis, Layout, LayoutError
from nfa.observe.products import Product, over_rows


def _saved(output: Tensor) -> dict[str, Any]:
    """Return the mean and 1/σ that PyTorch's normalisations save for their backward pass, if they do."""
    node = output.grad_fn
    return {"mean": getattr(node, "_saved_result1", None), "scale": getattr(node, "_saved_result2", None)}


@dataclass(frozen=True)
class LayerNorm:
    """z = w ∘ x̂ + b over the last dimensions; γ_w = Σ_s δ_s ∘ x̂_s and γ_b = Σ_s δ_s."""

    PARAMETERS: ClassVar = ("weight", "bias")
    input: Tensor
    normalized_shape: Any
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 1e-5
    mean: Tensor | None = None
    scale: Tensor | None = None

    saved = staticmethod(_saved)

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:
        features = -len(self.normalized_shape)
        if name == "bias":
            return Dense(over_rows(at.rows(delta.flatten(features))))
        if self.mean is None or self.scale is None:
            values = delta * F.layer_norm(self.input, self.normalized_shape, eps=self.eps)
            return Dense(over_rows(at.rows(values.flatten(features))))
        products = (self.input - self.mean).mul_(delta)
        rows, scales = (at.rows(of.flatten(features)) for of in (products, self.scale))
        return Dense((scales.transpose(1, 2) @ rows).squeeze(1))


@dataclass(frozen=True)
class RMSNorm:
    """z = w ∘ x / rms(x) over the last dimensions."""

    PARAMETERS: ClassVar = ("weight",)
    input: Tensor
    normalized_shape: Any
    weight: Tensor | None = None
    eps: float | None = None

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:  # noqa: ARG002
        values = delta * F.rms_norm(self.input, self.normalized_shape, eps=self.eps)
        return Dense(over_rows(at.rows(values.flatten(-len(self.normalized_shape)))))


@dataclass(frozen=True)
class GroupNorm:
    """z = w ∘ x̂ + b by channel, with x̂ normalised within groups of channels."""

    PARAMETERS: ClassVar = ("weight", "bias")
    input: Tensor
    num_groups: int
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 1e-5
    mean: Tensor | None = None
    scale: Tensor | None = None

    saved = staticmethod(_saved)

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:
        if name == "bias":
            return Dense(_by_channel(delta, at))
        if self.mean is None or self.scale is None:
            return Dense(_by_channel(delta * F.group_norm(self.input, self.num_groups, eps=self.eps), at))
        return Dense(_of_centred(self.input, delta, self.mean, self.scale, at))


@dataclass(frozen=True)
class BatchNorm:
    """z = w ∘ x̂ + b by channel, with x̂ normalised by running statistics; training mode has no rule."""

    PARAMETERS: ClassVar = ("weight", "bias")
    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:
        if self.training or self.running_mean is None or self.running_var is None:
            raise LayoutError
        if name == "bias":
            return Dense(_by_channel(delta, at))
        shape = self.input.shape[:2]
        mean, scale = self.running_mean.expand(shape), (self.running_var + self.eps).rsqrt().expand(shape)
        return Dense(_of_centred(self.input, delta, mean, scale, at))


def _of_centred(x: Tensor, delta: Tensor, mean: Tensor, scale: Tensor, at: Layout) -> Float[Tensor, "n c"]:
    """Return Σ_s δ_s (x_s − mean) scale by channel, for means and scales [n, g] of groups of channels; as in PyTorch,
    without (x − mean), which would be as large as x.
    """
    if x.is_contiguous() and delta.is_contiguous():
        sums = _of_one_image(x, delta, mean, scale)
    else:  # such as images with channels last, which would have to be copied
        mean, scale = (of.repeat_interleave(x.shape[1] // of.shape[1], dim=1) for of in (mean, scale))
        sums = scale * (_over_positions(delta * x) - mean * _over_positions(delta))
    return by_example(at.images(sums).unsqueeze(1), x, at).sum(dim=1)


def _of_one_image(x: Tensor, delta: Tensor, mean: Tensor, scale: Tensor) -> Float[Tensor, "n c"]:
    """Return the same as PyTorch's gradient of the weight for one image with the channels of all images, in one pass.
    """
    channels = x.shape[:2].numel()
    images = [of.view(1, channels, -1) for of in (delta, x)]
    groups = [of.reshape(1, -1) for of in (mean, scale)]
    sizes = (1, channels, images[0].shape[2], groups[0].shape[1])
    wanted, like = (False, True, False), x.new_empty(channels)
    made = torch.ops.aten.native_group_norm_backward(*images, *groups, like, *sizes, wanted)
    return cast(Tensor, made[1]).view(x.shape[:2])


def _by_channel(values: Tensor, at: Layout) -> Float[Tensor, "n c"]:
    """Sum [n, c, …] over positions."""
    return by_example(_over_positions(at.images(values)).unsqueeze(1), values, at).sum(dim=1)


def _over_positions(images: Tensor) -> Float[Tensor, "n c"]:
    return images.reshape(*images.shape[:2], -1).sum(dim=2)


@dataclass(frozen=True)
class Embedding:
    """z_s = row index_s of the table; γ has δ_s added to that row."""

    PARAMETERS: ClassVar = ("weight",)
    input: Tensor
    weight: Tensor
    padding_idx: int | None = None
    max_norm: float | None = None
    norm_type: float = 2.0
    scale_grad_by_freq: bool = False
    sparse: bool = False

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:  # noqa: ARG002
        if self.max_norm is not None or self.scale_grad_by_freq or not self.input.ndim:
            raise LayoutError
        index, values = at.rows(self.input.unsqueeze(-1)).squeeze(2), at.rows(delta)
        if self.padding_idx is not None:
            values = values * (index != self.padding_idx % len(self.weight)).unsqueeze(2)
        return Rows(index, values, len(self.weight))


@dataclass(frozen=True)
class Add:
    """z = x + w, with w repeated along examples: learned positions, biases, gates."""

    PARAMETERS: ClassVar = ("input", "other")
    input: Any
    other: Any
    alpha: float = 1

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:
        scale = self.alpha if name == "other" else 1
        return Dense(scale * _reduced(delta, getattr(self, name).shape, at))


@dataclass(frozen=True)
class Multiply:
    """z = x ∘ w, with w repeated along examples: scales and gates."""

    PARAMETERS: ClassVar = ("input", "other")
    input: Any
    other: Any

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:
        factor = self.other if name == "input" else self.input
        return Dense(_reduced(delta * factor, getattr(self, name).shape, at))


@dataclass(frozen=True)
class Repeat:
    """z = w repeated along examples: a token that begins every sequence, or a learned first state."""

    PARAMETERS: ClassVar = ("input",)
    input: Tensor

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:  # noqa: ARG002
        return Dense(_reduced(delta, self.input.shape, at))


def _repeat(input: Tensor, *sizes: Any) -> Repeat:
    """Return the rule; TypeError for a tensor that is not repeated along its first dimension, where examples are."""
    first, *_ = sizes[0] if isinstance(sizes[0], Sequence) else sizes
    if first in (-1, 1) or len(input) > 1:
        raise TypeError
    return Repeat(input)


def _reduced(values: Tensor, shape: torch.Size, at: Layout) -> Float[Tensor, "n p"]:
    """Sum [n, …] over every dimension along which a tensor of `shape` was repeated, except that of the examples."""
    padded = (1,) * (values.ndim - len(shape)) + tuple(shape)
    if not isinstance(at, Axis) or len(padded) != values.ndim or padded[at.dim] != 1:
        raise LayoutError
    rows = at.examples(values)  # [n k …]
    rest = [size for dim, size in enumerate(padded) if dim != at.dim]
    repeated = [1, *(2 + dim for dim, size in enumerate(rest) if size == 1 and rows.shape[2 + dim] > 1)]
    return rows.sum(dim=repeated).reshape(len(rows), -1)


PRODUCTS: dict[Callable[..., Any], type[Product]] = {**products.RULES, **convolutions.RULES}
RULES: dict[Callable[..., Any], Any] = {
    **PRODUCTS,
    F.layer_norm: LayerNorm,
    F.rms_norm: RMSNorm,
    F.group_norm: GroupNorm,
    F.batch_norm: BatchNorm,
    F.embedding: Embedding,
    torch.add: Add,
    torch.Tensor.add: Add,
    torch.mul: Multiply,
    torch.Tensor.mul: Multiply,
    torch.Tensor.expand: _repeat,
    torch.Tensor.repeat: _repeat,
    torch.Tensor.broadcast_to: _repeat,
    torch.broadcast_to: _repeat,
}


def add_rule(function: Callable[..., Any], rule: type[Any]) -> None:
    """Let your own rule read every call of a function, in place of an existing one.

    A `Product` becomes a site of every study; any other rule gives per-example gradients.

    Args:
        function: A function of PyTorch, or one that calls `torch.overrides.handle_torch_function`.
        rule: A dataclass whose fields are the function's arguments.

    Raises:
        Refusal: The rule is not a dataclass.
    """
    if not (isinstance(rule, type) and is_dataclass(rule)):
        got, allowed = f"add_rule({function.__name__}, {rule!r})", "a dataclass with the function's arguments as fields"
        raise Refusal(got, allowed, "put @dataclass(frozen=True) before the class, and give the class itself")
    RULES[function] = rule
    if issubclass(rule, Product):
        PRODUCTS[function] = rule
    else:
        PRODUCTS.pop(function, None)
