"""Gradients of examples by rule where layers work together: attention, embeddings, adapters, shared parameters."""

from typing import Any

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from tests.support.grams import Forward, check, normal, scrambled, tokens

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")
N = 9  # more than the examples that a model is tried on
WORDS = 7


class Attends(nn.Module):
    """A sequence [n s e] that attends to itself, or to another with features of its own."""

    def __init__(self, layout: str, **options: Any) -> None:
        super().__init__()
        self.layout, self.batch_first = layout, options["batch_first"]
        self.attention = nn.MultiheadAttention(4, 2, **options)
        self.to_key, self.to_value = nn.Linear(4, options.get("kdim", 4)), nn.Linear(4, options.get("vdim", 4))

    def forward(self, inputs: Tensor) -> Tensor:
        query = key = value = inputs.sin()
        if self.layout != "self":
            key, value = self.to_key(inputs[:, 1:]), self.to_value(inputs[:, 1:].square())
        if self.layout == "memory":
            value = key
        turned = [one if self.batch_first else one.transpose(0, 1) for one in (query, key, value)]
        attended = self.attention(*turned, need_weights=False)[0]
        return (attended if self.batch_first else attended.transpose(0, 1)).flatten(1)


LAYOUTS = [("self", {}), ("memory", {}), ("cross", {}), ("cross", {"kdim": 3, "vdim": 5}), ("cross", {"kdim": 3})]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layout", "sizes"), LAYOUTS)
def test_attention_equals_the_reference_by_rule(layout, sizes, bias, batch_first):
    net = Attends(layout, bias=bias, batch_first=batch_first, **sizes)
    check(net, normal(N, 5, 4))


@pytest.mark.parametrize("positions", [7, 8, 16])
def test_attention_with_time_first_is_read_right_where_positions_could_pass_for_examples(positions):
    for n in (7, 8, positions):
        check(Attends("self", batch_first=False), normal(n, positions, 4))


def test_a_key_and_a_value_that_are_parameters_have_no_rule_and_the_projections_have():
    net = Attends("self", batch_first=True, add_bias_kv=True, add_zero_attn=True)
    check(net, normal(N, 5, 4), exact=["attention.bias_k", "attention.bias_v"])


def test_attention_under_a_mask_equals_the_reference_by_rule():
    def forward(self, x):
        later = torch.triu(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool), 1)
        return self.attention(x, x, x, attn_mask=later)[0].flatten(1)

    check(Forward(forward, attention=nn.MultiheadAttention(4, 2, batch_first=True)), normal(N, 5, 4))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_every_parameter_of_a_transformer_has_a_rule(norm_first, bias):
    """Whose fused kernel for inference calls no function with a rule."""
    layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, norm_first=norm_first, bias=bias)
    check(nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten()), normal(N, 5, 4))
    assert torch.backends.mha.get_fastpath_enabled()


def test_windows_in_the_examples_dimension_of_attention_have_rules():
    """[n w s e] as [nw s e]: inside, the w windows of an example stand in the second dimension."""

    def forward(self, x):
        windows = self.first(x).reshape(-1, 3, 4)
        return self.norm(self.attention(windows, windows, windows)[0]).reshape(len(x), -1)

    parts = {"first": nn.Linear(4, 4), "norm": nn.LayerNorm(4)}
    net = Forward(forward, attention=nn.MultiheadAttention(4, 2, batch_first=True), **parts)
    check(net, normal(N, 6, 4))


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
@pytest.mark.parametrize("padding_idx", [None, 2])
def test_embeddings_of_any_index_equal_the_reference_by_rule(shape, padding_idx):
    table = nn.Embedding(WORDS, 4, padding_idx=padding_idx)
    net = Forward(lambda self, x: self.table(x).flatten(1).sin(), table=table)
    check(net, tokens(N, *shape, below=WORDS))


@pytest.mark.parametrize("padding_idx", [-1, WORDS - 1])
def test_a_padding_row_that_only_later_examples_have_gets_no_gradient(padding_idx):
    inputs = torch.cat([tokens(8, 4, below=WORDS - 1), tokens(8, 4, below=WORDS)])
    assert (inputs[8:] == WORDS - 1).any()
    check(Forward(lambda self, x: F.embedding(x, self.w, padding_idx).flatten(1), w=normal(WORDS, 3)), inputs)


POSITIONS = {
    "one row of indices": lambda self, x: self.words(x) + self.places(torch.arange(5).unsqueeze(0)),
    "indices alone": lambda self, x: self.words(x) + self.places(torch.arange(5)),
    "first summand": lambda self, x: self.places(torch.arange(5)) + self.words(x),
    "added in place": lambda self, x: self.words(x).add_(self.places(torch.arange(5).unsqueeze(0))),
    "after dropout": lambda self, x: self.words(x) + F.dropout(self.places(torch.arange(5)), 0.5, self.training),
    "a row each": lambda self, x: self.words(x) + self.places(torch.arange(5).expand(len(x), -1)),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_a_table_of_positions_that_examples_share_has_a_rule_where_it_is_added(name):
    def forward(self, x):
        return self.map(POSITIONS[name](self, x).sin()).flatten(1)

    parts = {"words": nn.Embedding(WORDS, 4), "places": nn.Embedding(6, 4), "map": nn.Linear(4, 2)}
    check(Forward(forward, **parts), tokens(N, 5, below=WORDS))
    check(Forward(forward, **parts), tokens(1, 5, below=WORDS))


SHARED = {
    "looked at in another shape": lambda self, x: x + self.places(torch.arange(3).unsqueeze(0)).view(3, 4),
    "summed": lambda self, x: x + self.places(torch.arange(3).unsqueeze(0)).sum(dim=(0, 1)),
    "its only row": lambda self, x: x + self.places(torch.arange(3).unsqueeze(0))[0],
    "multiplied": lambda self, x: x * self.places(torch.arange(3).unsqueeze(0)),
    "one entry": lambda self, x: x + self.places(torch.tensor(2)),
    "added twice": lambda self, x: x + (row := self.places(torch.arange(3))) + row.sin(),
}


@pytest.mark.parametrize("name", SHARED)
def test_a_table_that_examples_share_in_another_way_is_made_exactly(name):
    net = Forward(lambda self, x: SHARED[name](self, self.map(x)).sin(), places=nn.Embedding(6, 4), map=nn.Linear(4, 4))
    check(net, normal(N, 3, 4), exact=["places.weight"])


def test_a_table_that_embeds_and_reads_out_has_the_cross_terms_by_rule():
    def forward(self, x):
        return F.linear(self.map(self.table(x)).tanh(), self.table.weight).flatten(1)

    check(Forward(forward, table=nn.Embedding(WORDS, 4), map=nn.Linear(4, 4)), tokens(N, 3, below=WORDS))


def test_a_readout_module_that_shares_the_table_counts_once():
    net = nn.Sequential(nn.Embedding(WORDS, 4), nn.Tanh(), nn.Linear(4, WORDS))
    net[2].weight = net[0].weight
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "2.bias"]
    check(net, tokens(N, 3, below=WORDS))
    check(net, tokens(N, below=WORDS))


@pytest.mark.filterwarnings("ignore:Already found")
def test_lora_with_a_frozen_base_has_rules_for_both_factors():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["0", "2"], r=2, init_lora_weights=False)
    net = peft.inject_adapter_in_model(config, nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))
    names = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    assert len(names) == 4
    assert all("lora_" in name for name in names)
    check(net, normal(N, 4))
    check(net, normal(N, 3, 4))


def test_an_adapter_that_starts_at_zero_has_rules_for_both_factors():
    """B = 0: the gradient of A is zero for every example."""
    net = Forward(lambda self, x: self.base(x) + self.b(self.a(x)), base=nn.Linear(4, 3).requires_grad_(False))
    net.a, net.b = nn.Linear(4, 2, bias=False), nn.Linear(2, 3, bias=False)
    scrambled(net).b.weight.data.zero_()
    check(net, normal(N, 5, 4), scramble=False)


@pytest.mark.parametrize("name", ["GPT2", "Bert", "Llama", "ViT"])
def test_models_of_transformers_equal_the_reference_by_rule(name):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 6}
    text = {**sizes, "vocab_size": WORDS, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    made = {
        "GPT2": lambda: transformers.GPT2Config(**text, n_embd=4, n_layer=1, n_head=2, n_positions=8),
        "Bert": lambda: transformers.BertConfig(**text, max_position_embeddings=8, num_labels=3),
        "Llama": lambda: transformers.LlamaConfig(**text),
        "ViT": lambda: transformers.ViTConfig(**sizes, image_size=4, patch_size=2, num_labels=3),
    }[name]()
    kind = {"GPT2": "GPT2LMHeadModel", "Bert": "BertForSequenceClassification", "Llama": "LlamaForCausalLM"}
    model = getattr(transformers, kind.get(name, "ViTForImageClassification"))(made)
    net = Forward(lambda self, x: self.model(x).logits, model=model)
    images = name == "ViT"
    inputs = normal(N, 3, 4, 4) if images else tokens(N, 5, below=WORDS)
    check(net, inputs)


RECURRENT = {
    "GRU": lambda: (Forward(lambda self, x: self.r(x)[0].flatten(1), r=nn.GRU(2, 3, batch_first=True)), (4, 2)),
    "LSTM": lambda: (Forward(lambda self, x: self.r(x)[0][:, -1], r=nn.LSTM(2, 3, 2, batch_first=True)), (4, 2)),
    "LSTM, its state": lambda: (
        Forward(lambda self, x: self.r(x)[1][1].sum(0), r=nn.LSTM(2, 3, batch_first=True)),
        (4, 2),
    ),
    "LSTM, time first": lambda: (Forward(lambda self, x: self.r(x.transpose(0, 1))[0][-1], r=nn.LSTM(2, 3)), (4, 2)),
    "both ways": lambda: (
        Forward(lambda self, x: self.r(x)[0].flatten(1), r=nn.GRU(2, 3, 2, batch_first=True, bidirectional=True)),
        (4, 2),
    ),
    "without biases": lambda: (
        Forward(lambda self, x: self.r(x)[0].flatten(1), r=nn.RNN(2, 3, bias=False, batch_first=True)),
        (4, 2),
    ),
    "relu": lambda: (
        Forward(lambda self, x: self.r(x)[0].flatten(1), r=nn.RNN(2, 3, nonlinearity="relu", batch_first=True)),
        (4, 2),
    ),
    "GRUCell": lambda: (Forward(lambda self, x: self.r(x[:, 1], self.r(x[:, 0])), r=nn.GRUCell(2, 3)), (2, 2)),
    "LSTMCell": lambda: (
        Forward(lambda self, x: self.r(x[:, 1], self.r(x[:, 0]))[1], r=nn.LSTMCell(2, 3, bias=False)),
        (2, 2),
    ),
    "RNNCell": lambda: (Forward(lambda self, x: self.r(x[:, 1], self.r(x[:, 0])), r=nn.RNNCell(2, 3)), (2, 2)),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_equal_the_reference_by_rule(name):
    net, shape = RECURRENT[name]()
    check(net, normal(N, *shape))


def test_a_recurrent_layer_whose_state_is_projected_is_made_exactly():
    net = Forward(lambda self, x: self.r(x)[0][:, -1], r=nn.LSTM(2, 4, proj_size=3, batch_first=True))
    check(net, normal(N, 4, 2), exact=[name for name, _ in net.named_parameters()])
