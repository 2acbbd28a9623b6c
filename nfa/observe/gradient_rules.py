"""How each function that uses a parameter gives the parameter's gradient for each example.

A rule is a dataclass whose fields are the arguments of the function. It says which of them may be parameters and makes
their gradients from δ = ∂ℓ/∂(output). All but embeddings sum over positions s; `n` is the number of examples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nfa.maths.example_gradients import Dense, Factors, Part, Rows


class LayoutError(Exception):
    """A tensor whose examples cannot be told apart."""


def examples_first(tensor: Tensor, n: int, time_first: bool) -> Float[Tensor, "n s f"]:
    """[n … f], examples folded with positions [n·s … f], or, inside attention, [s n f]; LayoutError for others."""
    if tensor.ndim < 2 or (tensor.shape[:-1].numel() if time_first else len(tensor)) % n:
        raise LayoutError
    features = tensor.shape[-1]
    return tensor.reshape(-1, n, features).transpose(0, 1) if time_first else tensor.reshape(n, -1, features)


@dataclass(frozen=True)
class Linear:
    """z = h Wᵀ + b: γ_W = Σ_s δ_s h_sᵀ, γ_b = Σ_s δ_s."""

    PARAMETERS: ClassVar = ("weight", "bias")
    input: Tensor
    weight: Tensor
    bias: Tensor | None = None

    def gradient(self, name: str, delta: Tensor, n: int, time_first: bool) -> Part:
        d = examples_first(delta, n, time_first)
        if name == "bias":
            return Dense(d.sum(dim=1))
        return Factors(d.unsqueeze(2), examples_first(self.input, n, time_first).unsqueeze(2))


@dataclass(frozen=True)
class Matmul:
    """z = h W with W [i o] on the right: γ_W = Σ_s h_s δ_sᵀ."""

    PARAMETERS: ClassVar = ("other",)
    input: Tensor
    other: Tensor

    def gradient(self, name: str, delta: Tensor, n: int, time_first: bool) -> Part:  # noqa: ARG002
        if self.other.ndim != 2:
            raise LayoutError
        h, d = (examples_first(tensor, n, time_first).unsqueeze(2) for tensor in (self.input, delta))
        return Factors(h, d)


@dataclass(frozen=True)
class Addmm:
    """z = b + h W with W [i o]."""

    PARAMETERS: ClassVar = ("input", "mat2")
    input: Tensor
    mat1: Tensor
    mat2: Tensor

    def gradient(self, name: str, delta: Tensor, n: int, time_first: bool) -> Part:
        if name == "mat2":
            return Matmul(self.mat1, self.mat2).gradient("other", delta, n, time_first)
        return Dense(examples_first(delta, n, time_first).sum(dim=1))


@dataclass(frozen=True)
class Convolution:
    """γ_W = Σ_s δ_s p_sᵀ within each group, p_s the patch under the kernel at output position s."""

    PARAMETERS: ClassVar = ("weight", "bias")
    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    def gradient(self, name: str, delta: Tensor, n: int, time_first: bool) -> Part:  # noqa: ARG002
        if len(delta) % n or delta.ndim != self.weight.ndim:
            raise LayoutError
        d = _folded(delta.flatten(2).transpose(1, 2), n)
        if name == "bias":
            return Dense(d.sum(dim=1))
        patches = _folded(self._patches(), n)
        return Factors(d.unflatten(2, (self.groups, -1)), patches.unflatten(2, (self.groups, -1)))

    def _patches(self) -> Float[Tensor, "n s i"]:
        """Channels before kernel offsets; a Conv1d is a Conv2d on images of height 1."""
        dims = self.weight.ndim - 2
        stride, dilation = (_each(value, dims) for value in (self.stride, self.dilation))
        kernel = tuple(self.weight.shape[2:])
        image = F.pad(self.input, self._padding(kernel, dilation))
        if dims == 1:
            image, kernel, stride, dilation = image.unsqueeze(2), (1, *kernel), (1, *stride), (1, *dilation)
        return F.unfold(image, kernel, dilation=dilation, stride=stride).transpose(1, 2)

    def _padding(self, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> list[int]:
        """As `F.pad` takes it: the last dimension first, before and after."""
        if self.padding == "same":
            totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            sides = [(total // 2, total - total // 2) for total in totals]
        else:
            sides = [(p, p) for p in _each(0 if self.padding == "valid" else self.padding, len(kernel))]
        return [side for pair in reversed(sides) for side in pair]


def _each(value: Any, dims: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values


def _folded(tensor: Float[Tensor, "ns t f"], n: int) -> Float[Tensor, "n s f"]:
    return tensor.reshape(n, -1, tensor.shape[-1])


@dataclass(frozen=True)
class LayerNorm:
    """z = w ∘ x̂ + b over the last dimensions: γ_w = Σ_s δ_s ∘ x̂_s, γ_b = Σ_s δ_s."""

    PARAMETERS: ClassVar = ("weight", "bias")
    input: Tensor
    normalized_shape: Any
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 1e-5

    def gradient(self, name: str, delta: Tensor, n: int, time_first: bool) -> Part:
        dims = len(self.normalized_shape)
        values = delta if name == "bias" else delta * F.layer_norm(self.input, self.normalized_shape, eps=self.eps)
        return Dense(examples_first(values.flatten(-dims), n, time_first).sum(dim=1))


@dataclass(frozen=True)
class RMSNorm:
    """z = w ∘ x / rms(x) over the last dimensions."""

    PARAMETERS: ClassVar = ("weight",)
    input: Tensor
    normalized_shape: Any
    weight: Tensor | None = None
    eps: float | None = None

    def gradient(self, name: str, delta: Tensor, n: int, time_first: bool) -> Part:  # noqa: ARG002
        values = delta * F.rms_norm(self.input, self.normalized_shape, eps=self.eps)
        return Dense(examples_first(values.flatten(-len(self.normalized_shape)), n, time_first).sum(dim=1))


@dataclass(frozen=True)
class GroupNorm:
    """z = w ∘ x̂ + b by channel, x̂ normalised within groups of channels."""

    PARAMETERS: ClassVar = ("weight", "bias")
    input: Tensor
    num_groups: int
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 1e-5

    def gradient(self, name: str, delta: Tensor, n: int, time_first: bool) -> Part:  # noqa: ARG002
        values = delta if name == "bias" else delta * F.group_norm(self.input, self.num_groups, eps=self.eps)
        return Dense(_by_channel(values, n))


@dataclass(frozen=True)
class BatchNorm:
    """z = w ∘ x̂ + b by channel, x̂ normalised by running statistics; there is no rule in training mode."""

    PARAMETERS: ClassVar = ("weight", "bias")
    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5

    def gradient(self, name: str, delta: Tensor, n: int, time_first: bool) -> Part:  # noqa: ARG002
        if self.training:
            raise LayoutError
        normal = F.batch_norm(self.input, self.running_mean, self.running_var, eps=self.eps)
        return Dense(_by_channel(delta if name == "bias" else delta * normal, n))


def _by_channel(values: Tensor, n: int) -> Float[Tensor, "n c"]:
    """Sums over positions of [n c …]."""
    if len(values) % n:
        raise LayoutError
    return _folded(values.reshape(len(values), values.shape[1], -1).transpose(1, 2), n).sum(dim=1)


@dataclass(frozen=True)
class Embedding:
    """z_s = row index_s of the table: γ has δ_s added to that row."""

    PARAMETERS: ClassVar = ("weight",)
    input: Tensor
    weight: Tensor
    padding_idx: int | None = None
    max_norm: float | None = None
    norm_type: float = 2.0
    scale_grad_by_freq: bool = False
    sparse: bool = False

    def gradient(self, name: str, delta: Tensor, n: int, time_first: bool) -> Part:  # noqa: ARG002
        if self.max_norm is not None or self.scale_grad_by_freq or not self.input.ndim or len(self.input) % n:
            raise LayoutError
        index, values = self.input.reshape(n, -1), examples_first(delta, n, time_first=False)
        if self.padding_idx is not None:
            values = values * (index != self.padding_idx % len(self.weight)).unsqueeze(2)
        return Rows(index, values, len(self.weight))


@dataclass(frozen=True)
class Add:
    """z = x + w, w repeated along examples: learned positions, biases, gates."""

    PARAMETERS: ClassVar = ("input", "other")
    input: Any
    other: Any
    alpha: float = 1

    def gradient(self, name: str, delta: Tensor, n: int, time_first: bool) -> Part:  # noqa: ARG002
        scale = self.alpha if name == "other" else 1
        return Dense(scale * _reduced(delta, getattr(self, name).shape, n))


@dataclass(frozen=True)
class Multiply:
    """z = x ∘ w, w repeated along examples: scales and gates."""

    PARAMETERS: ClassVar = ("input", "other")
    input: Any
    other: Any

    def gradient(self, name: str, delta: Tensor, n: int, time_first: bool) -> Part:  # noqa: ARG002
        factor = self.other if name == "input" else self.input
        return Dense(_reduced(delta * factor, getattr(self, name).shape, n))


def _reduced(values: Tensor, shape: torch.Size, n: int) -> Float[Tensor, "n p"]:
    """Sums of [n …] over every dimension along which a tensor of `shape` was repeated, but the first."""
    padded = (1,) * (values.ndim - len(shape)) + tuple(shape)
    if len(values) != n or len(padded) != values.ndim or padded[0] != 1:
        raise LayoutError
    repeated = [dim for dim in range(1, values.ndim) if padded[dim] == 1 and values.shape[dim] > 1]
    return (values.sum(dim=repeated) if repeated else values).reshape(n, -1)


Rule = (
    type[Linear]
    | type[Matmul]
    | type[Addmm]
    | type[Convolution]
    | type[LayerNorm]
    | type[RMSNorm]
    | type[GroupNorm]
    | type[BatchNorm]
    | type[Embedding]
    | type[Add]
    | type[Multiply]
)
RULES: Mapping[Callable[..., Any], Rule] = {
    F.linear: Linear,
    torch.matmul: Matmul,
    torch.Tensor.matmul: Matmul,
    torch.addmm: Addmm,
    F.conv1d: Convolution,
    F.conv2d: Convolution,
    F.layer_norm: LayerNorm,
    F.rms_norm: RMSNorm,
    F.group_norm: GroupNorm,
    F.batch_norm: BatchNorm,
    F.embedding: Embedding,
    torch.add: Add,
    torch.Tensor.add: Add,
    torch.mul: Multiply,
    torch.Tensor.mul: Multiply,
}
