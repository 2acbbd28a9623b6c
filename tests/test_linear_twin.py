"""Twins of networks that are made of linear maps only: they compute the same, and leave the network alone."""

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_types import CASES, networks
from toys import seeded

from nfa import reference
from nfa.linear_twin import linear_twin


@pytest.mark.filterwarnings("ignore:Already found")
@pytest.mark.parametrize("kind", CASES)
def test_a_twin_computes_the_same_with_linear_maps_only(kind):
    @given(networks(CASES[kind]), st.integers(0, 99))
    @settings(max_examples=80 if kind == "convolution" else 20)
    def check(network, seed):
        net, case = network
        net = net.double().eval()
        twin = linear_twin(net)
        x = torch.randn(3, *case.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(twin(x), net(x), rtol=1e-12, atol=1e-12)
        for site in case.sites.values():
            assert type(twin.get_submodule(site)) is nn.Linear
        assert not any(isinstance(module, nn.Conv1d | nn.Conv2d | nn.MultiheadAttention) for module in twin.modules())

    check()


def test_a_twin_is_made_where_a_layer_is_the_model_and_where_modules_are_shared():
    convolution = nn.Conv2d(3, 4, 2).double()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(linear_twin(convolution)(x), convolution(x), rtol=1e-12, atol=1e-12)
    shared = nn.Conv1d(2, 2, 3, padding=1)
    twin = linear_twin(nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)}))
    assert twin["a"] is twin["b"][0]


def test_a_twin_of_a_transformer_layer_computes_the_same():
    layer = seeded(nn.TransformerEncoderLayer, 6, 2, 8, batch_first=True).double().eval()
    x = torch.randn(3, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(linear_twin(layer)(x), layer(x), rtol=1e-12, atol=1e-12)


def test_a_twin_leaves_the_model_and_the_generator_as_they_were():
    net = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(6, 2))
    state = torch.get_rng_state()
    twin = linear_twin(net)
    with torch.no_grad():
        twin[0].linear.weight.zero_()
    assert torch.equal(torch.get_rng_state(), state)
    assert type(net[0]) is nn.Conv1d
    assert net[0].weight.abs().min() > 0
    assert net.training


def test_a_convolution_by_hand():
    """h at each position is (channel 0: this, next; channel 1: this, next), with a zero on either side."""
    net = nn.Sequential(nn.Conv1d(2, 1, 2, padding=1))
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    h = reference.site_inputs(linear_twin(net), "0.linear", x)
    assert h.tolist() == [[[0, 1, 0, 3], [1, 2, 3, 4], [2, 0, 4, 0]]]


def test_the_weight_of_a_grouped_convolution_is_block_diagonal():
    layer = nn.Conv1d(4, 2, 3, groups=2)
    weight = linear_twin(layer).linear.weight
    assert torch.equal(weight[0], torch.cat([layer.weight[0].flatten(), torch.zeros(6)]))
    assert torch.equal(weight[1], torch.cat([torch.zeros(6), layer.weight[1].flatten()]))


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_attention_to_positions_that_are_no_input_is_refused(options):
    with pytest.raises(ValueError, match="no twin"):
        linear_twin(nn.MultiheadAttention(4, 2, **options))


def test_masked_attention_is_refused():
    twin, x = linear_twin(nn.MultiheadAttention(4, 2)), torch.randn(3, 1, 4)
    with pytest.raises(ValueError, match="mask"):
        twin(x, x, x, attn_mask=torch.zeros(3, 3))
