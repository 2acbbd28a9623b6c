"""Any linear layer as an obvious nn.Linear, so that nfa/reference needs no other layer type.

Like the rest of the reference it is slow, shares nothing with other code, and serves tests.
"""

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def linear_twin(model: nn.Module) -> nn.Module:
    """Return a copy of a model, in evaluation mode, that computes the same function with one nn.Linear per linear map.

    A convolution called `name` becomes patches gathered index by index, and `name.linear`: h is the patch of the padded
    input at an output position, with features ordered (channel, kernel offsets) as in `weight.flatten(1)`; groups are
    blocks on the diagonal of W [o, c·k]. For a transposed convolution h are the pixels that it reads, and `name.linear`
    [o·k, c] gives what each adds to the pixels around it. An nn.MultiheadAttention becomes the textbook formula with
    `name.q_proj`, `name.k_proj`, `name.v_proj` and `name.out_proj`; nn.LSTM, nn.GRU and nn.RNN become a loop over time
    with `name.weight_ih_l0`, `name.weight_hh_l0` and so on. A transformers Conv1D and any adapter layer of peft become
    `name`.

    Args:
        model: The model, which is not changed.

    Returns:
        The twin.

    Raises:
        ValueError: A layer has no twin.

    Example:
        >>> linear_twin(nn.Sequential(nn.Conv2d(3, 8, kernel_size=2)))[0].linear
        Linear(in_features=12, out_features=8, bias=True)
    """
    model = copy.deepcopy(model).eval()
    twins = {module: _twin(module) for module in model.modules()}
    for parent in twins:
        for name, child in list(parent._modules.items()):
            if child is not None:
                setattr(parent, name, twins[child])
    return twins[model]


def twin_sites(twin: nn.Module) -> dict[str, str]:
    """Return the paths of a twin's linear maps, by the path of the layer or parameter that each stands for.

    Args:
        twin: A result of `linear_twin`.

    Returns:
        The paths.

    Example:
        >>> twin_sites(linear_twin(nn.Sequential(nn.Conv2d(3, 8, kernel_size=2), nn.Flatten(), nn.Linear(8, 2))))
        {'0': '0.linear', '2': '2'}
    """
    modules = dict(twin.named_modules())
    paths = [path for path, module in modules.items() if type(module) is nn.Linear]
    inside = {path: path.rpartition(".")[0] for path in paths}
    return {inside[path] if isinstance(modules[inside[path]], Inside) else path: path for path in paths}


def _twin(module: Any) -> nn.Module:
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return _ScatteredConvolution(module)
    if isinstance(module, nn.modules.conv._ConvNd):
        return _GatheredConvolution(module)
    if isinstance(module, nn.MultiheadAttention):
        return _ExplicitAttention(module)
    if isinstance(module, nn.RNNBase):
        return _ExplicitRecurrence(module)
    if type(module).__name__ == "Conv1D":
        return _linear(module.weight.T, module.bias)
    return _adapted(module) if isinstance(getattr(module, "base_layer", None), nn.Module) else cast(nn.Module, module)


def _adapted(layer: Any) -> nn.Module:
    """Convert an adapter layer of peft by its images of 0 and of each unit vector."""
    if type(layer.base_layer).__name__ not in ("Linear", "Conv1D"):
        raise ValueError(f"an adapter of type {type(layer).__name__} around no linear layer has no twin")
    zero = layer.base_layer.weight.new_zeros(1, layer.in_features)
    rows = layer(torch.eye(layer.in_features, dtype=zero.dtype)) - layer(zero)
    return _linear(rows.T, layer(zero)[0])


def _linear(weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone())
    return linear


class Inside(nn.Module):
    """A stand-in for a layer that holds its one linear map as `linear`."""

    linear: nn.Linear

    @property
    def weight(self) -> Tensor:
        """The weight, whose type some models inspect."""
        return self.linear.weight


class _GatheredConvolution(Inside):
    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.axes = list(zip(convolution.kernel_size, convolution.stride, convolution.dilation, strict=True))
        self.padding = convolution._reversed_padding_repeated_twice
        self.padding_mode = convolution.padding_mode.replace("zeros", "constant")
        blocks = convolution.weight.flatten(1).chunk(convolution.groups)
        self.linear = _linear(torch.block_diag(*blocks), convolution.bias)

    def forward(self, input: Float[Tensor, "n c ..."]) -> Float[Tensor, "n o ..."]:
        pixels = F.pad(input.flatten(2), (1, 0))  # index 0 is the zero of zero padding
        numbers = torch.arange(1.0, pixels.shape[2]).reshape(1, 1, *input.shape[2:])
        numbers = F.pad(numbers, self.padding, mode=self.padding_mode)[0, 0].long()
        axes = list(zip(numbers.shape, self.axes, strict=True))
        starts = [range(0, size - dilation * (kernel - 1), stride) for size, (kernel, stride, dilation) in axes]
        moves = list(itertools.product(*(range(0, dilation * kernel, dilation) for kernel, _, dilation in self.axes)))
        corners = itertools.product(*starts)
        patches = [[numbers[tuple(map(sum, zip(at, move, strict=True)))] for move in moves] for at in corners]
        z: Tensor = self.linear(pixels[:, :, torch.tensor(patches)].transpose(1, 2).flatten(2))
        # Contiguous, because BatchNorm's backward misreads a single example in channels-last memory format.
        return z.transpose(1, 2).contiguous().reshape(len(input), -1, *map(len, starts))


class _ScatteredConvolution(Inside):
    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.sizes = list(zip(convolution.kernel_size, convolution.stride, convolution.dilation, strict=True))
        self.padding, self.more = convolution.padding, convolution.output_padding
        blocks = [part.flatten(1).T for part in convolution.weight.chunk(convolution.groups)]
        self.linear, self.bias = _linear(torch.block_diag(*blocks), None), convolution.bias

    def forward(self, input: Float[Tensor, "n c ..."], output_size: Any = None) -> Float[Tensor, "n o ..."]:
        if output_size is not None:
            raise ValueError("a transposed convolution that is given its output's size has no twin")
        axes = list(zip(input.shape[2:], self.sizes, strict=True))
        added = self.linear(input.flatten(2).transpose(1, 2)).unflatten(
            2, (-1, *(kernel for kernel, _, _ in self.sizes))
        )
        corners = [range(0, size * stride, stride) for size, (_, stride, _) in axes]
        full = [(size - 1) * stride + dilation * (kernel - 1) + 1 for size, (kernel, stride, dilation) in axes]
        full = [size + more for size, more in zip(full, self.more, strict=True)]
        z = input.new_zeros(len(input), added.shape[2], *full)
        for place, corner in enumerate(itertools.product(*corners)):
            under = [slice(at, at + d * (k - 1) + 1, d) for at, (k, _, d) in zip(corner, self.sizes, strict=True)]
            z[:, :, *under] += added[:, place]
        z = z[:, :, *(slice(pad, size - pad) for size, pad in zip(full, self.padding, strict=True))]
        return z if self.bias is None else z + self.bias.reshape(-1, *[1] * len(full))


class _ExplicitRecurrence(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        if layer.proj_size:
            raise ValueError("a recurrent layer with a projection has no twin")
        self.step = {"LSTM": _lstm_step, "GRU": _gru_step}.get(layer.mode, _rnn_step(layer.mode))
        self.directions = ["", "_reverse"][: 1 + layer.bidirectional]
        self.layers, self.hidden, self.batch_first = layer.num_layers, layer.hidden_size, layer.batch_first
        for name in [name for name, _ in layer.named_parameters() if name.startswith("weight")]:
            bias = getattr(layer, name.replace("weight", "bias")) if layer.bias else None
            self.add_module(name, _linear(getattr(layer, name), bias))

    def forward(self, input: Float[Tensor, "n t f"], state: None = None) -> tuple[Tensor, Any]:
        if not isinstance(input, Tensor) or input.ndim != 3 or state is not None:
            raise ValueError("a recurrent layer on packed or single sequences, or with a state given, has no twin")
        x, ends = input if self.batch_first else input.transpose(0, 1), []
        for layer in range(self.layers):
            parts = []
            for direction in self.directions:
                outputs, end = self._run(x, f"_l{layer}{direction}", backwards=bool(direction))
                parts.append(outputs)
                ends.append(end)
            x = torch.cat(parts, dim=2)
        finals = tuple(torch.stack(part) for part in zip(*ends, strict=True))
        return x if self.batch_first else x.transpose(0, 1), finals if len(finals) == 2 else finals[0]

    def _run(self, x: Float[Tensor, "n t f"], suffix: str, *, backwards: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        inner, recurrent = self.get_submodule(f"weight_ih{suffix}"), self.get_submodule(f"weight_hh{suffix}")
        state: tuple[Tensor, ...] = (x.new_zeros(len(x), self.hidden),) * (2 if self.step is _lstm_step else 1)
        outputs = []
        for now in reversed(x.unbind(1)) if backwards else x.unbind(1):
            state = self.step(inner(now), recurrent(state[0]), state)
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if backwards else outputs, dim=1), state


def _lstm_step(a: Tensor, b: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    i, f, g, o = (a + b).chunk(4, dim=1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru_step(a: Tensor, b: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (a_r, a_z, a_n), (b_r, b_z, b_n) = a.chunk(3, dim=1), b.chunk(3, dim=1)
    z = torch.sigmoid(a_z + b_z)
    return ((1 - z) * torch.tanh(a_n + torch.sigmoid(a_r + b_r) * b_n) + z * state[0],)


def _rnn_step(mode: str) -> Callable[[Tensor, Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    activation = torch.relu if mode == "RNN_RELU" else torch.tanh
    return lambda a, b, _state: (activation(a + b),)


class _ExplicitAttention(nn.Module):
    def __init__(self, attention: Any) -> None:
        super().__init__()
        if attention.bias_k is not None or attention.add_zero_attn:
            raise ValueError("attention with add_bias_kv or add_zero_attn has no twin")
        self.heads, self.batch_first = attention.num_heads, attention.batch_first
        self.in_proj_bias = None  # keeps nn.TransformerEncoderLayer from its fused kernel
        separate = [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
        weights = separate if attention.in_proj_weight is None else attention.in_proj_weight.chunk(3)
        biases = [None] * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)
        self.out_proj = _linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        query, key, value = (x if self.batch_first else x.transpose(0, 1) for x in (query, key, value))
        projected = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        q, k, v = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in projected)
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
        if (mask := options.get("attn_mask")) is not None:  # [q k] or [n·heads q k]
            scores = scores + _additive(mask, q).unflatten(0, (-1, self.heads) if mask.ndim == 3 else (1, -1))
        if (padding := options.get("key_padding_mask")) is not None:
            scores = scores + _additive(padding, q)[:, None, None]
        weights = torch.softmax(scores, dim=-1)
        z = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
        return z if self.batch_first else z.transpose(0, 1), weights.mean(dim=1)


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """Convert a mask that is true where nothing may be seen into a term that is added to the scores."""
    return like.new_zeros(mask.shape).masked_fill(mask, -math.inf) if mask.dtype == torch.bool else mask.to(like)
