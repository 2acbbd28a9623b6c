"""Any linear layer as an obvious nn.Linear, so that nfa/reference needs to know no other layer type.

Like the reference it is slow, shares nothing with the rest of nfa, and serves tests.
"""

import copy
import itertools
import math
from typing import Any, cast

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def linear_twin(model: nn.Module) -> nn.Module:
    """A copy, in evaluation mode, that computes the same with an nn.Linear for every linear map.

    A convolution called `name` becomes patches gathered index by index and `name.linear`: h is the patch of the padded
    input at an output position, its features ordered (channel, kernel offsets) as in `weight.flatten(1)`; groups are
    blocks on the diagonal of W [o, c·k]. An nn.MultiheadAttention becomes the textbook formula with `name.q_proj`,
    `name.k_proj`, `name.v_proj`, `name.out_proj`. A transformers Conv1D and a peft LoRA layer become `name`.

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


def _twin(module: Any) -> nn.Module:
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return _GatheredConvolution(module)
    if isinstance(module, nn.MultiheadAttention):
        return _ExplicitAttention(module)
    if type(module).__name__ == "Conv1D":
        return _linear(module.weight.T, module.bias)
    if not getattr(module, "lora_A", None):
        return cast(nn.Module, module)
    zero = module.weight.new_zeros(module.in_features)
    rows = module(torch.eye(len(zero), dtype=zero.dtype)) - module(zero)
    return _linear(rows.T, module(zero))


def _linear(weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone())
    return linear


class _GatheredConvolution(nn.Module):
    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.axes = list(zip(convolution.kernel_size, convolution.stride, convolution.dilation, strict=True))
        self.padding = convolution._reversed_padding_repeated_twice
        self.padding_mode = convolution.padding_mode.replace("zeros", "constant")
        blocks = convolution.weight.flatten(1).chunk(convolution.groups)
        self.linear = _linear(torch.block_diag(*blocks), convolution.bias)

    def forward(self, input: Float[Tensor, "n c ..."]) -> Float[Tensor, "n o ..."]:
        pixels = F.pad(input.flatten(2), (1, 0))  # number 0 is the zero of zero padding
        numbers = torch.arange(1.0, pixels.shape[2]).reshape(1, 1, *input.shape[2:])
        numbers = F.pad(numbers, self.padding, mode=self.padding_mode)[0, 0].long()
        axes = list(zip(numbers.shape, self.axes, strict=True))
        starts = [range(0, size - dilation * (kernel - 1), stride) for size, (kernel, stride, dilation) in axes]
        moves = list(itertools.product(*(range(0, dilation * kernel, dilation) for kernel, _, dilation in self.axes)))
        corners = itertools.product(*starts)
        patches = [[numbers[tuple(map(sum, zip(at, move, strict=True)))] for move in moves] for at in corners]
        z: Tensor = self.linear(pixels[:, :, torch.tensor(patches)].transpose(1, 2).flatten(2))
        return z.transpose(1, 2).reshape(len(input), -1, *map(len, starts))


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
        if options.get("key_padding_mask") is not None or options.get("attn_mask") is not None:
            raise ValueError("attention with a mask has no twin")
        query, key, value = (x if self.batch_first else x.transpose(0, 1) for x in (query, key, value))
        projected = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        q, k, v = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in projected)
        weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[3]), dim=-1)
        z = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
        return z if self.batch_first else z.transpose(0, 1), weights.mean(dim=1)
