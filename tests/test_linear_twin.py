"""Twins of networks that are made of linear maps only: they compute the same, and leave the network alone."""

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa import reference
from nfa.reference.linear_twin import linear_twin, twin_sites
from tests.support.layer_types import CASES, networks
from tests.support.toy_models import seeded


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


@pytest.mark.parametrize("kind", ["causal", "of each head", "padding", "both", "added"])
def test_masked_attention_sees_what_it_is_to_see(kind):
    attention = seeded(nn.MultiheadAttention, 4, 2, batch_first=True).double().eval()
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    options = {
        "causal": {"attn_mask": causal},
        "of each head": {"attn_mask": torch.rand(6, 5, 5, dtype=torch.float64) * causal},
        "padding": {"key_padding_mask": torch.arange(5) >= torch.tensor([5, 2, 3])[:, None]},
        "both": {"attn_mask": causal, "key_padding_mask": torch.arange(5) >= torch.tensor([5, 2, 3])[:, None]},
        "added": {"attn_mask": torch.randn(5, 5, dtype=torch.float64)},
    }[kind]
    found, right = linear_twin(attention)(x, x, x, **options)[0], attention(x, x, x, **options)[0]
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)


TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1, "output_padding": 1},
        {"stride": 3, "dilation": 2, "groups": 2, "bias": False},
        {"padding": 2, "groups": 4},
    ],
)
def test_a_twin_of_a_transposed_convolution_computes_the_same(axes, options):
    layer = seeded(TRANSPOSED[axes - 1], 4, 8, 3, **options).double()
    x = torch.randn(2, 4, *(4, 3, 5)[:axes], dtype=torch.float64)
    twin = linear_twin(nn.Sequential(layer))
    torch.testing.assert_close(twin(x), layer(x), rtol=1e-12, atol=1e-12)
    assert twin_sites(twin) == {"0": "0.linear"}
    assert twin[0].linear.weight.shape == (8 * 3**axes, 4)


def test_of_a_transposed_convolution_h_are_the_pixels_and_z_what_each_adds():
    layer = nn.ConvTranspose1d(1, 1, 2, bias=False)
    layer.weight.data = torch.tensor([[[10.0, 1.0]]])
    twin, x = linear_twin(nn.Sequential(layer)), torch.tensor([[[1.0, 2.0]]])
    assert reference.site_inputs(twin, "0.linear", x).tolist() == [[[1], [2]]]
    assert reference.site_outputs(twin, "0.linear", x).tolist() == [[[10, 1], [20, 2]]]
    assert twin(x).tolist() == [[[10, 21, 2]]]


def test_a_transposed_convolution_that_is_told_its_outputs_size_is_refused():
    with pytest.raises(ValueError, match="no twin"):
        linear_twin(nn.ConvTranspose1d(1, 1, 2))(torch.ones(1, 1, 2), output_size=[4])


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
def test_a_twin_of_a_convolution_of_volumes_computes_the_same(mode):
    layer = seeded(nn.Conv3d, 4, 6, (2, 3, 1), stride=(1, 2, 1), padding=1, padding_mode=mode, groups=2).double()
    x = torch.randn(2, 4, 4, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(linear_twin(layer)(x), layer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_first": True, "bias": False}, {"num_layers": 2, "bidirectional": True}],
)
def test_a_twin_of_a_recurrent_layer_computes_the_same(kind, options):
    layer = seeded(kind, 3, 4, **options).double()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    twin = linear_twin(layer)
    (found, state), (right, end) = twin(x), layer(x)
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, end, rtol=1e-12, atol=1e-12)
    assert list(twin_sites(twin)) == [name for name, _ in layer.named_parameters() if name.startswith("weight")]


def test_a_recurrent_twin_with_relu_computes_the_same_and_others_are_refused():
    layer, x = seeded(nn.RNN, 3, 4, nonlinearity="relu").double(), torch.randn(5, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(linear_twin(layer)(x)[0], layer(x)[0], rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="packed"):
        linear_twin(layer)(nn.utils.rnn.pack_sequence([x[:, 0]]))
    with pytest.raises(ValueError, match="projection"):
        linear_twin(nn.LSTM(3, 4, proj_size=2))


def test_a_twin_of_batch_norm_behind_a_convolution_has_its_gradients_for_one_example():
    """Whose backward misreads a layout in which the channels of one example come last."""
    net = seeded(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 2)))
    net = net.double().eval()
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    found, right = (torch.autograd.grad(model(x).sum(), x)[0] for model in (linear_twin(net), net))
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)
