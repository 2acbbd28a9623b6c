"""Inputs for which the numbers were once wrong, or that were refused, with the right values by loops in float64.

Each kind of fault is tested on what was tried first and on another input of the kind.
"""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from nfa.errors import Refusal
from nfa.measures.mean_gradient import mean_gradient
from nfa.workload import Batch
from nfa.workloads.probe import Probe
from nfa.workloads.supervised import Supervised
from tests.support.models.loops import agree, alignment, analysis, heard, measured
from tests.support.models.text import WORDS, bert, gpt2, t5
from tests.support.models.workloads import (
    EXAMPLES,
    LENGTHS,
    alone,
    classifier,
    cross_entropy,
    mask_of,
    next_tokens,
    normal,
    own_logits,
    texts,
    whole,
)
from tests.support.toy_models import layers, seeded


def cut(example: Batch, length: int) -> Batch:
    """An example without its padding, which stands last."""
    return Batch(*(_cut(part, length) for part in (example.inputs, example.targets)), example.ids)


def _cut(part, length):
    if isinstance(part, dict):
        return {name: tensor[:, :length] for name, tensor in part.items()}
    return part[:, :length] if part.ndim > 1 else part


# ---- padding: each example counts at its own length


@pytest.mark.parametrize("longest", [5, 13])
def test_padded_texts_are_measured_at_their_own_lengths(longest):
    workload = gpt2(longest)
    model = workload.model().double().eval()
    examples = [cut(example, length) for example, length in zip(alone(workload), LENGTHS, strict=True)]
    right = alignment(
        model.transformer.h[0].mlp.c_fc.weight.T, heard(model, "transformer.h.0.mlp.c_fc", workload, examples)
    )
    agree(measured(gpt2(longest), "transformer.h.0.mlp.c_fc"), right)


@pytest.mark.parametrize("layer", ["bert.encoder.layer.0.intermediate.dense", "bert.pooler.dense", "classifier"])
def test_padding_that_is_masked_on_both_sides_does_not_count_and_a_pooled_layer_has_one_position(layer):
    workload = bert()
    model = workload.model().double().eval()
    examples = [cut(example, length) for example, length in zip(alone(workload), LENGTHS, strict=True)]
    right = alignment(model.get_submodule(layer).weight, heard(model, layer, workload, examples))
    agree(measured(bert(), layer), right)


def test_own_positions_come_from_the_attention_mask():
    padded = gpt2(13)
    plain = Probe(padded.network, next_tokens, padded.all.inputs, padded.all.targets, own_logits)
    layer = "transformer.h.0.mlp.c_fc"
    agree(measured(plain, layer), measured(gpt2(13), layer), 1e-7)


def test_inputs_that_look_padded_are_refused_where_nothing_says_which_positions_count():
    padded = gpt2(13)
    inputs = {"input_ids": padded.all.inputs["input_ids"]}

    def looked_at() -> None:
        analysis(Probe(padded.network, next_tokens, inputs, padded.all.targets), padded.network)

    with pytest.raises(Refusal, match="attention_mask"):
        looked_at()


# ---- the map that is really applied


class Masked(nn.Linear):
    """Half of its weights are held at zero, inside its own forward."""

    def mask(self) -> torch.Tensor:
        return (torch.arange(self.weight.numel()).reshape(self.weight.shape) % 2).to(self.weight)

    def forward(self, input):
        return F.linear(input, self.weight * self.mask(), self.bias)

    def applied(self):
        return self.weight * self.mask()


class LowRank(nn.Linear):
    """W + B A, computed in its own forward."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.A, self.B = nn.Parameter(torch.randn(2, inputs)), nn.Parameter(torch.randn(outputs, 2))

    def forward(self, input):
        return F.linear(input, self.weight, self.bias) + input @ self.A.T @ self.B.T

    def applied(self):
        return self.weight + self.B @ self.A


class Scaled(nn.Linear):
    """Three times what a linear layer gives."""

    def forward(self, input):
        return 3 * super().forward(input)

    def applied(self):
        return 3 * self.weight


@pytest.mark.parametrize("kind", [Masked, LowRank, Scaled])
def test_of_a_layer_with_a_forward_of_its_own_the_map_that_it_applies_is_measured(kind):
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), kind(5, 6), nn.Tanh(), nn.Linear(6, 3))

    workload = classifier(seeded(build), normal(EXAMPLES, 4) + 1, 3)
    model = copy.deepcopy(workload.model()).double()
    right = alignment(model[2].applied(), heard(model, "2", workload, alone(workload)))
    agree(measured(workload, "2"), right)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", [torch.nn.utils.weight_norm, torch.nn.utils.spectral_norm])
def test_a_weight_that_a_hook_computes_is_that_of_this_forward_pass_and_not_of_the_last_one(norm):
    def build() -> nn.Module:
        return nn.Sequential(norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))

    workload = classifier(seeded(build), normal(EXAMPLES, 4) + 1, 3)
    model = workload.model()
    made = analysis(workload, model, sites="0")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    (batch,) = workload.batches("train", batch_size=EXAMPLES)
    workload.losses(workload.outputs(model, batch), batch).mean().backward()
    optimizer.step()
    found = {key.removeprefix("0/"): value for key, value in made.values(model).items()}
    slow = seeded(build)  # such a module cannot be copied
    slow.load_state_dict(model.state_dict())
    slow.double().eval()
    passes = heard(slow, "0", workload, alone(workload))
    agree(found, alignment(slow[0].weight, passes))


# ---- types of numbers


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_over_many_examples_in_half_precision_do_not_move_with_the_batch_size(dtype):
    inputs = (normal(4096, 6) + 1).to(dtype)
    network = seeded(layers, 6, 8, 3).to(dtype)

    def workload() -> Probe:
        return Probe(network, lambda f, y: cross_entropy(f.float(), y), inputs, whole(3, 4096))

    H = inputs.double().T @ inputs.double()
    W = network[0].weight.detach().double()
    M = W.T @ W
    right = float((H * M).sum() / H.norm() / M.norm())
    found = [measured(workload(), "0", network, batch_size=size) for size in (16, 512, 4096)]
    assert [values["h_vs_m"] for values in found] == pytest.approx([right] * 3, abs=1e-5)
    slow = copy.deepcopy(network).double()
    exact = alignment(slow[0].weight, heard(slow, "0", workload(), alone(workload())[:1024]))
    for name in exact:
        assert [values[name] for values in found] == pytest.approx([found[0][name]] * 3, abs=2e-4), name
        assert found[0][name] == pytest.approx(exact[name], abs=0.1), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mean_gradients_in_half_precision_do_not_move_with_the_batch_size(dtype):
    network, inputs = seeded(layers, 6, 8, 3).to(dtype), (normal(4096, 6) + 1).to(dtype)
    workload = Probe(network, lambda f, y: cross_entropy(f.float(), y), inputs, whole(3, 4096))
    slow = copy.deepcopy(network).double()
    weights = dict(slow.named_parameters())
    loss = cross_entropy(slow(inputs.double()), whole(3, 4096)).mean()
    right = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
    for size in (16, 512, 4096):
        found = mean_gradient(workload, network, workload.batches("train", batch_size=size))
        for name, gradient in right.items():
            assert (found[name] - gradient).norm() <= 0.01 * gradient.norm(), (size, name)


def test_conventions_name_the_type_of_half_precision_weights():
    network = seeded(layers, 6, 8, 3).to(torch.bfloat16)
    workload = Probe(network, lambda f, y: cross_entropy(f.float(), y), normal(8, 6).bfloat16(), whole(3, 8))
    assert "bfloat16" in str(analysis(workload, network).described()["conventions"])


class Complex(nn.Module):
    """A complex layer, whose output's size is read out."""

    def __init__(self, functional: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 5, dtype=torch.complex64)
        self.readout, self.functional = nn.Linear(5, 3), functional

    def forward(self, x):
        weight = self.layer.weight
        z = x.to(weight.dtype) @ weight.T if self.functional else self.layer(x.to(weight.dtype))
        return self.readout(z.abs())


@pytest.mark.parametrize("functional", [False, True])
def test_complex_weights_are_refused_and_never_cut_to_their_real_part(functional):
    workload = classifier(seeded(Complex, functional), normal(EXAMPLES, 4), 3)
    with pytest.raises(Refusal, match="complex"):
        analysis(workload, workload.model(), sites="layer")


class Autocast(nn.Module):
    """Autocast inside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.net = layers(4, 6, 5, 3)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(x).float()


@pytest.mark.parametrize("inside", [True, False])
def test_autocast_inside_the_model_or_around_it_is_taken_and_products_of_records_are_in_float32(inside):
    workload = classifier(seeded(Autocast), normal(EXAMPLES, 4) + 1, 3)
    if not inside:
        workload = classifier(workload.network.net, normal(EXAMPLES, 4) + 1, 3)
    site = "net.2" if inside else "2"
    with torch.autocast("cpu", torch.bfloat16, enabled=not inside):
        found = measured(workload, site)
    slow = copy.deepcopy(workload.network.net if inside else workload.network).double()
    plain = classifier(slow, normal(EXAMPLES, 4) + 1, 3)
    agree(found, alignment(slow[2].weight, heard(slow, "2", plain, alone(plain))), 0.02)


# ---- which dimension is the examples'


class TimeFirst(nn.Module):
    """Positions before examples inside; as many positions as examples."""

    def __init__(self, encoder: bool) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, activation=F.gelu) if encoder else None
        self.layer, self.readout = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        moved = x.transpose(0, 1)
        moved = torch.tanh(self.layer(moved)) if self.encoder is None else self.encoder(moved)
        return self.readout(moved.mean(dim=0))


@pytest.mark.parametrize("encoder", [True, False])
@pytest.mark.parametrize("positions", ["each", "sum"])
def test_a_time_first_layer_is_read_right_though_there_are_as_many_positions_as_examples(encoder, positions):
    workload = classifier(seeded(TimeFirst, encoder), normal(EXAMPLES, EXAMPLES, 4) + 1, 3)
    site = "encoder.linear1" if encoder else "layer"
    model = copy.deepcopy(workload.model()).double().train()  # without dropout, and so without the fused kernel
    passes = heard(model, site, workload, alone(workload))
    right = alignment(model.get_submodule(site).weight, passes, together=positions == "sum")
    agree(measured(workload, site, positions=positions, batch_size=EXAMPLES), right)


# ---- an encoder and a decoder, padded each in its own way

TARGETS = (3, 2, 3, 1)


def towers(longest: int, *, encoder: tuple[int, ...] = LENGTHS, masked: bool = True) -> Probe:
    """A T5 on 5, 3, 2 and 4 tokens, that answers with 3, 2, 3 and 1."""
    present, own = mask_of(encoder, 5), mask_of(TARGETS, longest)
    tokens = texts(WORDS, len(TARGETS), longest, seed=3).masked_fill(~own, 0)
    inputs = {"input_ids": texts(WORDS, len(encoder), 5).masked_fill(~present, 0), "decoder_input_ids": tokens}
    inputs["attention_mask"] = present.long()
    if masked:
        inputs["decoder_attention_mask"] = own.long()
    return Probe(t5().network, answers, inputs, tokens.masked_fill(~own, -100))


def answers(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    each = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none", ignore_index=-100)
    return each.sum(dim=1) / (tokens != -100).sum(dim=1)


def cut_towers(example: Batch, encoder: int, decoder: int) -> Batch:
    lengths = {name: decoder if "decoder" in name else encoder for name in example.inputs}
    inputs = {name: part[:, : lengths[name]] for name, part in example.inputs.items()}
    return Batch(inputs, example.targets[:, :decoder], example.ids)


@pytest.mark.parametrize(
    ("layer", "encoder"),
    [
        ("encoder.block.0.layer.1.DenseReluDense.wi_0", LENGTHS),
        ("decoder.block.0.layer.1.EncDecAttention.k", LENGTHS),
        ("decoder.block.0.layer.2.DenseReluDense.wo", (5, 5, 5, 5)),
    ],
)
def test_outputs_and_positions_that_only_pad_the_answers_of_a_decoder_do_not_count(layer, encoder):
    workload = towers(6, encoder=encoder)
    model = copy.deepcopy(workload.network).double().eval()
    examples = [cut_towers(*of) for of in zip(alone(workload), encoder, TARGETS, strict=True)]
    right = alignment(model.get_submodule(layer).weight, heard(model, layer, workload, examples))
    agree(measured(workload, layer), right)


def test_two_ways_of_padding_to_one_length_are_refused_and_to_different_lengths_taken():
    with pytest.raises(Refusal, match=r"both padded to 5 positions(.|\n)*one more position"):
        towers(5)
    assert analysis(towers(6), towers(6).network).sites


def test_a_decoder_that_looks_padded_is_refused_until_its_own_mask_is_given():
    with pytest.raises(Refusal, match="pass a dict with decoder_attention_mask"):
        towers(6, masked=False)


def test_padded_outputs_count_the_same_in_a_workload_of_datasets():
    padded = gpt2(13)
    probe = Probe(padded.network, next_tokens, padded.all.inputs, padded.all.targets)
    items = [
        ({name: of[place] for name, of in padded.all.inputs.items()}, padded.all.targets[place])
        for place in range(len(LENGTHS))
    ]
    workload = Supervised(model=lambda: padded.network, loss=next_tokens, train=items, val=items, device="cpu")
    layer = "transformer.h.0.mlp.c_fc"
    agree(measured(workload, layer, padded.network), measured(probe, layer, padded.network), 1e-6)
