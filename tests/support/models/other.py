"""An LSTM, a graph network, experts of one's own, and a model that calls nothing but functions."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nfa.workloads.probe import Probe
from tests.support.models.workloads import EXAMPLES, classifier, normal, whole
from tests.support.toy_models import seeded


class Recurrent(nn.Module):
    """A recurrent layer on a sequence [n t f], and a readout of its last step."""

    def __init__(self, kind: Callable[..., nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.lstm = kind(3, 4, batch_first=True, **options)
        self.readout = nn.Linear(4 * (1 + self.lstm.bidirectional), 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.readout(self.lstm(inputs)[0][:, -1])
        return outputs


def lstm() -> Probe:
    return classifier(seeded(Recurrent, nn.LSTM), normal(EXAMPLES, 5, 3), 3)


def gru() -> Probe:
    """Of two layers, in both directions."""
    return classifier(seeded(Recurrent, nn.GRU, num_layers=2, bidirectional=True), normal(EXAMPLES, 5, 3), 3)


class Graphs(nn.Module):
    """Messages along directed edges, added up at the node where they end; graphs [n nodes f] with edges [n e 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.message, self.update = nn.Linear(3, 4), nn.Linear(8, 4), nn.Linear(8, 4)
        self.readout = nn.Linear(4, 3)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        n, size, _ = nodes.shape
        ends = (edges + size * torch.arange(n)[:, None, None]).flatten(0, 1)
        hidden = torch.tanh(self.embed(nodes)).flatten(0, 1)
        for _ in range(2):
            pairs = torch.cat([hidden[ends[:, 0]], hidden[ends[:, 1]]], dim=1)
            sums = torch.zeros_like(hidden).index_add(0, ends[:, 1], torch.tanh(self.message(pairs)))
            hidden = torch.tanh(self.update(torch.cat([hidden, sums], dim=1)))
        outputs: Tensor = self.readout(hidden.unflatten(0, (n, size)).mean(dim=1))
        return outputs


def graphs() -> Probe:
    """Six graphs of five nodes and seven edges."""
    inputs = {"nodes": normal(EXAMPLES, 5, 3), "edges": whole(5, EXAMPLES, 7, 2)}
    return classifier(seeded(Graphs), inputs, 3)


class Functional(nn.Module):
    """Parameters and functions, without a layer: a convolution, F.linear, @, and addmm."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.b1 = nn.Parameter(torch.randn(3, 2, 2)), nn.Parameter(torch.randn(3))
        self.w1, self.w2 = nn.Parameter(torch.randn(4, 3) / 2), nn.Parameter(torch.randn(4, 5) / 2)
        self.w3, self.b3 = nn.Parameter(torch.randn(5, 3) / 2), nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(F.conv1d(x, self.kernel, self.b1)).transpose(1, 2)
        hidden = torch.tanh(F.linear(hidden, self.w1))
        hidden = torch.tanh(hidden @ self.w2).mean(dim=1)
        return torch.addmm(self.b3, hidden, self.w3)


def functional() -> Probe:
    """On sequences of two channels and four steps."""
    return classifier(seeded(Functional), normal(EXAMPLES, 2, 4), 3)


class FunctionalTwin(nn.Module):
    """The same written with nn.Linear, each called as the parameter that it stands for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        assert isinstance(model, Functional)
        self.kernel = _linear(model.kernel.flatten(1), model.b1)
        self.w1, self.w2 = _linear(model.w1), _linear(model.w2.T)
        self.w3 = _linear(model.w3.T, model.b3)

    def forward(self, x: Tensor) -> Tensor:
        patches = torch.stack([x[:, :, t : t + 2].flatten(1) for t in range(x.shape[2] - 1)], dim=1)
        hidden = torch.tanh(self.w1(torch.tanh(self.kernel(patches))))
        outputs: Tensor = self.w3(torch.tanh(self.w2(hidden)).mean(dim=1))
        return outputs


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone())
    return linear
