"""Layers of every supported type in random configurations, and a network around one, for tests against their twins."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn as nn
from hypothesis import strategies as st
from torch import Tensor

from tests.support.toy_models import seeded


@dataclass(frozen=True)
class Case:
    """A layer and the shape of one example's input.

    `module` is its name in `Around`, `sites` its sites' names in nfa and in the twin, `keyword` the name of its
    argument where layer and twin share one.
    """

    layer: nn.Module
    shape: tuple[int, ...]
    module: str = "layer"
    sites: Mapping[str, str] = field(default_factory=lambda: {"layer": "layer"})
    keyword: str = ""


class Around(nn.Module):
    """A map of the last axis, `layer` called once or twice, an activation, a readout of everything: [n …] → [n k]."""

    def __init__(self, case: Case, *, calls: int, by_name: bool, activation: nn.Module, classes: int) -> None:
        super().__init__()
        self.calls, self.keyword = calls, case.keyword if by_name else ""
        self.before, self.layer = nn.Linear(case.shape[-1], case.shape[-1]), case.layer
        self.activation = activation
        self.readout = nn.Linear(self.hidden(torch.ones(1, *case.shape)).shape[1], classes)

    def hidden(self, inputs: Tensor) -> Tensor:
        moved = torch.tanh(self.before(inputs))
        both = torch.stack([moved, moved.flip(-1).square()])[: self.calls].unbind()
        outputs = [self.layer(**{self.keyword: x}) if self.keyword else self.layer(x) for x in both]
        return torch.cat([self.activation(z).flatten(1) for z in outputs], dim=1)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.readout(self.hidden(inputs))
        return outputs


class Attention(nn.Module):
    """Attention of a sequence [n s e] to itself, or to another with the same or other numbers of features.

    `layout`: "self" (query, key and value are one tensor), "memory" (key and value are one) or "cross".
    """

    def __init__(self, layout: str, size: int, heads: int, *, kdim: int, vdim: int, batch_first: bool, bias: bool):
        super().__init__()
        sizes = {"kdim": kdim, "vdim": vdim} if layout == "cross" else {}
        self.layout = layout
        self.attend = nn.MultiheadAttention(size, heads, bias=bias, batch_first=batch_first, **sizes)
        self.memory, self.to_key, self.to_value = (nn.Linear(size, out) for out in (size, kdim, vdim))
        for offset in (self.attend.in_proj_bias, self.attend.out_proj.bias) if bias else ():
            nn.init.normal_(offset)  # PyTorch's are zero

    def forward(self, input: Tensor) -> Tensor:
        key, value = self.others(input)
        if self.attend.batch_first:
            return self.attended(input, key, value, need_weights=False)
        query = input.transpose(0, 1)
        if self.layout == "self":
            return self.attended(query, query, query).transpose(0, 1)
        return self.attended(value=value.transpose(0, 1), key=key.transpose(0, 1), query=query).transpose(0, 1)

    def attended(self, *inputs: Tensor, **more: Any) -> Tensor:
        outputs: Tensor = self.attend(*inputs, **more)[0]
        return outputs

    def others(self, input: Tensor) -> tuple[Tensor, Tensor]:
        if self.layout == "cross":
            return self.to_key(input[:, 1:]), self.to_value(input[:, :-1])
        memory = input if self.layout == "self" else self.memory(input[:, 1:])
        return memory, memory


@st.composite
def convolutions(draw: Callable[..., Any]) -> Case:
    """Conv1d and Conv2d: kernel, stride, dilation, padding of every mode, groups up to depthwise."""
    axes = draw(st.integers(1, 2))
    small = st.tuples(*[st.integers(1, 2)] * axes)
    kernel, dilation = draw(st.tuples(*[st.integers(1, 3)] * axes)), draw(small)
    size = tuple(d * (k - 1) + draw(st.integers(1, 3)) for k, d in zip(kernel, dilation, strict=True))
    padding = draw(st.sampled_from(["valid", "same"]) | st.tuples(*[st.integers(0, 2)] * axes))
    if not isinstance(padding, str):
        padding = tuple(min(pad, length - 1) for pad, length in zip(padding, size, strict=True))
    groups, fewer, more = draw(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)))
    layer = seeded(
        (nn.Conv1d, nn.Conv2d)[axes - 1],
        groups * fewer,
        groups * more,
        kernel,
        stride=1 if padding == "same" else draw(small),
        padding=padding,
        padding_mode=draw(st.sampled_from(["zeros", "circular", "reflect", "replicate"])),
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
    )
    return Case(layer, (groups * fewer, *size), sites={"layer": "layer.linear"}, keyword="input")


@st.composite
def attentions(draw: Callable[..., Any]) -> Case:
    """nn.MultiheadAttention of one to three sequences, packed and separate weights, batch first or second."""
    heads, length, kdim, vdim = draw(st.tuples(*[st.integers(1, 2), st.integers(2, 3)] * 2))
    size, options = (
        heads * draw(st.integers(1, 2)),
        draw(st.fixed_dictionaries(dict.fromkeys(["batch_first", "bias"], st.booleans()))),
    )
    layout = draw(st.sampled_from(["self", "memory", "cross"]))
    layer = seeded(Attention, layout, size, heads, kdim=kdim, vdim=vdim, **options)
    names = [f"layer.attend.{part}_proj" for part in ("q", "k", "v", "out")]
    return Case(layer, (length, size), "layer.attend", {name: name for name in names}, keyword="input")


sizes = st.integers(1, 5)


@st.composite
def linears(draw: Callable[..., Any], axes: int = 2) -> Case:
    """nn.Linear on any number of axes."""
    inputs, outputs, *lead = draw(st.tuples(sizes, sizes) | st.tuples(sizes, sizes, *[st.integers(1, 3)] * axes))
    return Case(seeded(nn.Linear, inputs, outputs, bias=draw(st.booleans())), (*lead, inputs), keyword="input")


def conv1d(outputs: int, inputs: int) -> nn.Module:
    """transformers' Conv1D with a bias that is not zero."""
    layer: nn.Module = pytest.importorskip("transformers.pytorch_utils").Conv1D(outputs, inputs)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


@st.composite
def gpt_layers(draw: Callable[..., Any]) -> Case:
    """transformers' Conv1D."""
    inputs, outputs, length = draw(st.tuples(sizes, sizes, st.integers(1, 3)))
    return Case(seeded(conv1d, outputs, inputs), (length, inputs))


@st.composite
def lora_layers(draw: Callable[..., Any]) -> Case:
    """peft's LoRA around nn.Linear or Conv1D: one adapter or two, merged or not, with dropout."""
    inputs, outputs, length, rank, alpha = draw(st.tuples(sizes, sizes, *[st.integers(1, 3)] * 3))
    transposed, rslora, second, merged = draw(st.tuples(*[st.booleans()] * 4))

    def build() -> nn.Module:
        peft = pytest.importorskip("peft")
        base = conv1d(outputs, inputs) if transposed else nn.Linear(inputs, outputs)
        options = {"r": rank, "lora_alpha": alpha, "use_rslora": rslora, "fan_in_fan_out": transposed}
        config = peft.LoraConfig(target_modules=["0"], init_lora_weights=False, lora_dropout=0.5, **options)
        model = peft.inject_adapter_in_model(config, nn.Sequential(base))
        if second:
            model = peft.inject_adapter_in_model(config, model, "second")
            model[0].set_adapter(["default", "second"])
        if merged:
            model[0].merge()
        built: nn.Module = model[0]
        return built

    return Case(seeded(build), (length, inputs))


CASES = {
    "Linear": linears(),
    "convolution": convolutions(),
    "MultiheadAttention": attentions(),
    "Conv1D": gpt_layers(),
    "LoRA": lora_layers(),
}


@st.composite
def networks(draw: Callable[..., Any], cases: st.SearchStrategy[Case]) -> tuple[Around, Case]:
    """A network around one of `cases`."""
    case: Case = draw(cases)
    activation = draw(st.sampled_from([nn.Tanh(), nn.ReLU(inplace=True)]))
    options = draw(
        st.fixed_dictionaries({"calls": st.integers(1, 2), "by_name": st.booleans(), "classes": st.integers(1, 3)})
    )
    around = seeded(Around, case, activation=activation, **options)
    assert isinstance(around, Around)
    return around, case
