"""Gradients of examples by the rule of each function that uses parameters, against the reference's loop."""

from collections.abc import Callable

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import given, settings

from nfa.observe.door import find_sites
from tests.support.grams import Forward, assert_close, check, everything, expected_gram, found_gram, normal, probe
from tests.support.layer_types import CASES, networks

Build = Callable[[], tuple[nn.Module, tuple[int, ...]]]  # and the shape of an example
N = 9  # more than the examples that a model is tried on


def flat(*layers: nn.Module) -> nn.Module:
    """Layers, and everything that comes out as the outputs."""
    return nn.Sequential(*layers, nn.Flatten())


def linears() -> dict[str, Build]:
    return {
        "2-D": lambda: (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), (4,)),
        "no bias": lambda: (nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False)), (4,)),
        "3-D": lambda: (flat(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), (6, 4)),
        "3-D, many positions": lambda: (flat(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1, bias=False)), (20, 2)),
        "4-D": lambda: (flat(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 2)), (2, 3, 4)),
        "wide": lambda: (flat(nn.Linear(2, 130), nn.Tanh(), nn.Linear(130, 2)), (3, 2)),
        "edited in place": lambda: (
            Forward(lambda self, x: self.map(x).mul_(x).tanh().flatten(1), map=nn.Linear(4, 4)),
            (3, 4),
        ),
        "called by name": lambda: (Forward(lambda self, x: self.map(input=x), map=nn.Linear(4, 3)), (4,)),
        "one output": lambda: (Forward(lambda self, x: self.map(x).squeeze(-1), map=nn.Linear(4, 1)), (4,)),
        "windows in the examples' dimension": lambda: (
            Forward(lambda self, x: self.map(x.reshape(-1, 2, 4)).tanh().reshape(len(x), -1), map=nn.Linear(4, 3)),
            (6, 4),
        ),
        "several calls": lambda: (
            Forward(lambda self, x: self.map(self.map(x).tanh()) * self.map(x[:, :1]), map=nn.Linear(4, 4)),
            (3, 4),
        ),
        "functional": lambda: (Forward(lambda self, x: F.linear(x, self.w, self.b), w=normal(3, 4), b=normal(3)), (4,)),
        "rows of a parameter": lambda: (
            Forward(lambda self, x: sum(F.linear(x, w).tanh() for w in self.w.chunk(3)), w=normal(6, 4)),
            (4,),
        ),
    }


def products() -> dict[str, Build]:
    return {
        "x @ W": lambda: (Forward(lambda self, x: x @ self.w, w=normal(4, 3)), (4,)),
        "x @ W, 3-D": lambda: (Forward(lambda self, x: torch.matmul(x, self.w).tanh(), w=normal(4, 3)), (5, 4)),
        "x @ W.T": lambda: (Forward(lambda self, x: x @ self.w.T, w=normal(3, 4)), (2, 4)),
        "W of a map and of a product": lambda: (
            Forward(lambda self, x: F.linear(x, self.w).tanh() @ self.w, w=normal(3, 4)),
            (2, 4),
        ),
        "addmm": lambda: (Forward(lambda self, x: torch.addmm(self.b, x, self.w), b=normal(3), w=normal(4, 3)), (4,)),
        "addmm, bias of one row": lambda: (
            Forward(lambda self, x: torch.addmm(self.b, x, self.w), b=normal(1, 3), w=normal(4, 3)),
            (4,),
        ),
    }


def norms() -> dict[str, Build]:
    return {
        "LayerNorm": lambda: (flat(nn.LayerNorm(4)), (3, 4)),
        "LayerNorm of two dimensions": lambda: (flat(nn.LayerNorm((3, 4))), (3, 4)),
        "LayerNorm of two dimensions, with positions": lambda: (flat(nn.LayerNorm((3, 4), eps=0.1)), (2, 3, 4)),
        "LayerNorm without bias": lambda: (flat(nn.LayerNorm(4, bias=False)), (4,)),
        "LayerNorm without parameters": lambda: (
            flat(nn.Linear(4, 4), nn.LayerNorm(4, elementwise_affine=False)),
            (4,),
        ),
        "RMSNorm": lambda: (flat(nn.RMSNorm(4)), (3, 4)),
        "RMSNorm of two dimensions": lambda: (flat(nn.RMSNorm((3, 4), eps=0.1)), (2, 3, 4)),
        "GroupNorm": lambda: (flat(nn.GroupNorm(2, 4)), (4, 3)),
        "GroupNorm of images": lambda: (flat(nn.Conv2d(2, 4, 1), nn.GroupNorm(4, 4, eps=0.1)), (2, 3, 2)),
        "GroupNorm of channels last": lambda: (channels_last(nn.GroupNorm(2, 4)), (3, 4)),
        "BatchNorm1d of channels last": lambda: (channels_last(nn.BatchNorm1d(4)), (3, 4)),
        "BatchNorm1d": lambda: (flat(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh()), (4,)),
        "BatchNorm1d with positions": lambda: (flat(nn.BatchNorm1d(4, eps=0.1)), (4, 3)),
        "BatchNorm2d": lambda: (flat(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(inplace=True)), (2, 3, 4)),
    }


def channels_last(norm: nn.Module) -> nn.Module:
    """A normalisation of channels that are last in memory."""
    return Forward(lambda self, x: self.norm(x.transpose(1, 2)).sin().flatten(1), norm=norm)


def tables() -> dict[str, Build]:
    """Parameters that are added or multiplied, repeated along the examples."""
    return {
        "offset": lambda: (Forward(lambda self, x: (x + self.p).tanh(), p=normal(4)), (4,)),
        "offset first": lambda: (Forward(lambda self, x: (self.p + x).tanh(), p=normal(4)), (3, 4)),
        "positions": lambda: (Forward(lambda self, x: (x + self.p).tanh(), p=normal(1, 5, 4)), (5, 4)),
        "first of the positions": lambda: (
            Forward(lambda self, x: (x + self.p[:, :3]).tanh(), p=normal(1, 5, 4)),
            (3, 4),
        ),
        "as many positions as examples": lambda: (Forward(lambda self, x: (x + self.p).tanh(), p=normal(N, 4)), (N, 4)),
        "shifted positions": lambda: (
            Forward(lambda self, x: (x + self.p[:3]).tanh() * (x + self.p[1:4]), p=normal(5, 4)),
            (3, 4),
        ),
        "scaled sum": lambda: (Forward(lambda self, x: torch.add(x, self.p, alpha=3).sin(), p=normal(4)), (4,)),
        "gate": lambda: (Forward(lambda self, x: x.sin() * self.p, p=normal()), (2, 4)),
        "gates of 1 and 1": lambda: (
            Forward(lambda self, x: (x * self.p + self.q).sin(), p=normal(1), q=normal(1, 1)),
            (4,),
        ),
        "scale of each channel": lambda: (Forward(lambda self, x: torch.mul(self.p, x), p=normal(3, 1, 1)), (3, 2, 2)),
        "broadcast on both sides": lambda: (
            Forward(lambda self, x: (x.unsqueeze(2) * self.p).flatten(1), p=normal(1, 1, 3)),
            (4,),
        ),
        "relative positions": lambda: (
            Forward(lambda self, x: F.linear(x, self.p).softmax(-1) @ self.p, p=normal(7, 4)),
            (5, 4),
        ),
    }


LAYERS = {**linears(), **products(), **norms(), **tables()}


@pytest.mark.parametrize("name", LAYERS)
def test_functions_of_parameters_equal_the_reference_by_rule(name):
    net, shape = LAYERS[name]()
    check(net, normal(N, *shape))


def test_kernels_with_channels_last_have_rules():
    parts = [nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.ConvTranspose2d(4, 3, 2, stride=2)]
    net, inputs = flat(*parts).to(memory_format=torch.channels_last), normal(N, 2, 5, 4)
    assert not net[0].weight.is_contiguous()
    check(net, inputs.to(memory_format=torch.channels_last))


def test_a_norm_of_channels_last_alone_has_gradients_and_sites_before_it_are_found():
    """PyTorch's backward pass of it ends the process where its input needs no gradient."""
    net = flat(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 3, 2)).double()
    inputs, names = normal(N, 2, 5, 4), ["1.weight", "1.bias"]
    expected = expected_gram(probe(net, inputs), names)
    turned = probe(net.to(memory_format=torch.channels_last), inputs.to(memory_format=torch.channels_last))
    assert_close(found_gram(turned, names), expected)
    assert {"0", "2"} <= {*find_sites(net, turned, everything(turned).take(range(4))).seen}


STRIDED = {"turned": normal(4, 3).T, "columns": normal(3, 8)[:, ::2], "square, turned": normal(4, 4).T}


@pytest.mark.parametrize("name", STRIDED)
def test_a_parameter_that_is_not_contiguous_has_rules_also_for_two_kinds_of_use(name):
    check(Forward(lambda self, x: F.linear(x, self.w), w=STRIDED[name]), normal(N, 4))
    both = Forward(lambda self, x: F.linear(x, self.w) + (x.unsqueeze(1) * self.w).sin().sum(2), w=STRIDED[name])
    check(both, normal(N, 4))


@pytest.mark.parametrize("name", STRIDED)
def test_views_of_a_parameter_that_is_not_contiguous_are_made_exactly(name):
    net = Forward(lambda self, x: F.linear(F.linear(x, self.w).sin(), self.w.T), w=STRIDED[name])
    check(net, normal(N, 4), exact=["w"])


def test_the_weight_and_bias_of_transformers_conv1d_have_a_rule():
    Conv1D = pytest.importorskip("transformers.pytorch_utils").Conv1D
    check(nn.Sequential(Conv1D(5, 4), nn.GELU(), Conv1D(3, 5)), normal(N, 2, 4))


PADDINGS = {
    "plain": {},
    "stride": {"stride": 2},
    "padding and dilation": {"padding": 2, "dilation": 2},
    "same": {"padding": "same"},
    "same, dilated": {"padding": "same", "dilation": 2},
    "valid": {"padding": "valid", "stride": 3},
    "circular": {"padding": 1, "padding_mode": "circular"},
    "reflect": {"padding": 1, "padding_mode": "reflect"},
    "groups": {"groups": 2, "stride": 2, "padding": 1},
    "depthwise": {"groups": 4, "bias": False},
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("name", PADDINGS)
def test_convolutions_equal_the_reference_by_rule(name, kernel):
    options = PADDINGS[name]
    check(flat(nn.Conv1d(4, 8, kernel, **options), nn.ReLU(), nn.Conv1d(8, 2, 1)), normal(N, 4, 7))
    check(flat(nn.Conv2d(4, 4, (kernel, 2), **options), nn.Tanh(), nn.Conv2d(4, 1, 1)), normal(N, 4, 5, 6))


def test_unequal_strides_paddings_and_dilations_of_the_two_axes_are_kept_apart():
    layer = nn.Conv2d(2, 3, (2, 3), stride=(1, 2), padding=(2, 1), dilation=(3, 1))
    check(flat(layer), normal(N, 2, 5, 6))


def test_one_weight_in_convolutions_of_different_groups_has_their_sum():
    def forward(self, x):
        wide = torch.cat([x, x.square()], dim=1)
        return torch.cat([F.conv1d(x, self.w), F.conv1d(wide, self.w, groups=2)], dim=2).flatten(1)

    check(Forward(forward, w=normal(4, 2, 3)), normal(N, 2, 5))


@pytest.mark.filterwarnings("ignore:Already found")
@pytest.mark.parametrize("kind", CASES)
def test_random_layers_of_every_type_equal_the_reference(kind):
    @given(networks(CASES[kind]))
    @settings(max_examples=3 if kind == "LoRA" else 8)
    def checked(network):
        net, case = network
        check(net, normal(N, *case.shape), scramble=False)

    checked()
