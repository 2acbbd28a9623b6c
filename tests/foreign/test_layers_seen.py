"""Layers and models that were refused, or left out without a word: seen with the right values, or named."""

import copy
import re
from contextlib import suppress

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from nfa.testing import inertness
from tests.support.models.adapted import KINDS, adapted
from tests.support.models.image import unet, volumes
from tests.support.models.loops import Pass, agree, alignment, analysis, cosine, heard, measured
from tests.support.models.other import gru, lstm
from tests.support.models.text import WORDS, mixtral
from tests.support.models.workloads import EXAMPLES, alone, classifier, normal, whole
from tests.support.toy_models import Noisy, layers, seeded

# ---- watching changes nothing, buffers included


class Counting(nn.Module):
    """Counts its calls and keeps a running mean, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = layers(4, 5, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.calls += 1
        self.mean.lerp_(x.mean(dim=0).detach(), 0.1)
        return self.net(x)


def spectral() -> nn.Module:
    return nn.Sequential(torch.nn.utils.parametrizations.spectral_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))


@pytest.mark.parametrize("build", [spectral, Counting])
def test_buffers_that_a_forward_pass_updates_are_bitwise_as_without_watching(build):
    workload = classifier(seeded(build), normal(EXAMPLES, 4), 3)
    start, ids = copy.deepcopy(workload.model()), range(EXAMPLES)
    made = analysis(workload, copy.deepcopy(start))
    plain = inertness.trained(workload, start, ids)
    watched = inertness.trained(workload, start, ids, lambda model: made.values(model))
    assert inertness.differing(plain.state, watched.state) == []


@pytest.mark.parametrize("build", [spectral, Counting])
def test_reading_weights_and_looking_at_a_model_leave_it_bitwise_as_it_was(build):
    workload = classifier(seeded(build), normal(EXAMPLES, 4), 3)
    model = workload.model().train()
    before = inertness.state(model)
    made = analysis(workload, model, relations="nfm_stable_rank,out_m_stable_rank")
    assert inertness.differing(before, inertness.state(model)) == []
    assert made.values(model)
    assert inertness.differing(before, inertness.state(model)) == []


# ---- what is not called is left out and named


class Idle(nn.Module):
    """A layer that is never called, and one of a depth that is not reached."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.idle, self.readout = nn.Linear(4, 5), nn.Linear(7, 7), nn.Linear(5, 3)
        self.blocks, self.depth = nn.ModuleList(nn.Linear(5, 5) for _ in range(3)), 2

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        for block in self.blocks[: self.depth]:
            hidden = torch.tanh(block(hidden))
        return self.readout(hidden)


def test_layers_that_are_never_called_are_left_out_with_one_line():
    workload = classifier(seeded(Idle), normal(EXAMPLES, 4), 3)
    made = analysis(workload, workload.model())
    assert sorted(made.sites) == ["blocks.0", "blocks.1", "first", "readout"]
    assert made.values(workload.model())
    assert re.fullmatch(r"watching [\d,]+ of [\d,]+ weights .*not seen: 'idle', 'blocks\.2'", made.coverage)


def test_the_copy_that_a_classifier_with_adapters_never_calls_is_left_out():
    import peft
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=WORDS, num_labels=3, max_position_embeddings=8, **sizes)

    def build() -> nn.Module:
        return peft.get_peft_model(BertForSequenceClassification(config), peft.LoraConfig(r=2, task_type="SEQ_CLS"))

    inputs = {"input_ids": whole(WORDS, EXAMPLES, 4)}
    workload = classifier(seeded(build), inputs, 3)
    made = analysis(workload, workload.model())
    assert not [site for site in made.sites if "original_module" in site]
    assert any("classifier" in site for site in made.sites)
    assert made.values(workload.model())


@pytest.mark.parametrize(
    ("sites", "chosen"),
    [
        ("!readout", ["first", "blocks.0", "blocks.1"]),
        ("blocks.*,!blocks.1", ["blocks.0"]),
        (r"/blocks\.[13]|^f/", ["first", "blocks.1"]),
        (r"*,!/blocks/", ["first", "readout"]),
    ],
)
def test_sites_are_left_out_by_an_exclamation_mark_and_chosen_by_an_expression_between_slashes(sites, chosen):
    workload = classifier(seeded(Idle), normal(EXAMPLES, 4), 3)
    assert sorted(analysis(workload, workload.model(), sites=sites).sites) == sorted(chosen)


def test_one_line_says_how_many_weights_are_watched_and_what_is_not_seen():
    workload = classifier(seeded(Noisy, 4, 5, 3), normal(EXAMPLES, 4), 3)
    made = analysis(workload, workload.model())
    assert re.fullmatch(r"watching [\d,]+ of [\d,]+ weights .*not seen: 'norm'", made.coverage)


class Trying(nn.Module):
    """Calls a layer that fails, and goes on without it."""

    def __init__(self) -> None:
        super().__init__()
        self.failing, self.own, self.readout = nn.Linear(9, 9), nn.Parameter(torch.randn(5, 4)), nn.Linear(5, 3)

    def forward(self, x):
        with suppress(RuntimeError):
            x = self.failing(x)
        return self.readout(torch.tanh(F.linear(x, self.own.abs())))


@pytest.mark.filterwarnings("error")
def test_after_a_layer_that_fails_sites_are_called_by_the_module_that_goes_on():
    workload = classifier(seeded(Trying), normal(EXAMPLES, 4), 3)
    assert set(analysis(workload, workload.model()).sites) == {"computed", "readout"}


# ---- compiled models and adapters


def applied(layer: nn.Module, kind: str) -> torch.Tensor:
    """W of an adapter layer by the formula of its paper."""
    W = layer.base_layer.weight
    if kind == "DoRA":
        V = W + layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        return layer.lora_magnitude_vector["default"].weight[:, None] * V / V.norm(dim=1, keepdim=True)
    if kind == "AdaLoRA":
        A, E, B = (getattr(layer, f"lora_{part}")["default"] for part in "AEB")
        return W + layer.scaling["default"] / (layer.ranknum["default"] + 1e-5) * B @ (A * E)
    if kind == "IA3":
        scale = layer.ia3_l["default"]
        return W * scale
    if kind == "LoHa":
        parts = [getattr(layer, f"hada_w{name}")["default"] for name in ("1_a", "1_b", "2_a", "2_b")]
        return W + layer.scaling["default"] * (parts[0] @ parts[1]) * (parts[2] @ parts[3])
    return W + layer.get_delta_weight("default")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("site", ["base_model.model.0", "base_model.model.2"])
def test_adapters_are_read_as_the_map_that_they_apply(kind, site):
    name, options = KINDS[kind]
    workload = adapted(name, **options)
    model = copy.deepcopy(workload.model()).double().eval()
    W = applied(model.get_submodule(site), kind)
    agree(measured(workload, site), alignment(W, heard(model, site, workload, alone(workload))))


# ---- layers that nobody saw


def input_side(W: torch.Tensor, passes: list[Pass], rows) -> dict[str, float]:
    """Relations whose matrices are all on the input side, from gradients with respect to the layer's input itself.

    `rows` makes [s i] of anything shaped like the input; right where each entry of the input is one entry of one h.
    """
    W = W.detach()
    H, G, A = (torch.zeros(W.shape[1], W.shape[1], dtype=torch.float64) for _ in range(3))
    for one in passes:
        h = rows(one.h.detach())
        (g,) = torch.autograd.grad(one.loss, one.h, retain_graph=True)
        H += h.T @ h
        G += rows(g).T @ rows(g)
        for output in one.outputs.flatten():
            (J,) = torch.autograd.grad(output, one.h, retain_graph=True)
            A += rows(J).T @ rows(J)
    M = W.T @ W
    return {"agop_nfm": cosine(A, M), "g_vs_h": cosine(G, H), "g_vs_m": cosine(G, M), "h_vs_m": cosine(H, M)}


def pixels(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2).transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("site", ["up1", "up2"])
def test_a_transposed_convolution_is_a_map_from_each_pixel_to_those_under_the_kernel(site):
    workload = unet()
    model = copy.deepcopy(workload.model()).double()
    layer = model.get_submodule(site)
    right = input_side(layer.weight.flatten(1).T, heard(model, site, workload, alone(workload)), pixels)
    agree(measured(workload, site, relations="agop_nfm,g_vs_h,g_vs_m,h_vs_m"), right)


def test_a_convolution_of_volumes_is_a_map_of_patches():
    """Patches of a kernel of 2 with stride 2 do not overlap, so that each entry of the input is in one."""
    workload = volumes()
    model = copy.deepcopy(workload.model()).double()
    (batch,) = workload.batches("train", batch_size=EXAMPLES)
    passes = []
    for place in range(EXAMPLES):
        example = batch.double().take([place])
        x = example.inputs.requires_grad_()
        outputs = model(x)
        passes.append(Pass(x, x, outputs, workload.losses(outputs, example).squeeze()))

    def patches(x: torch.Tensor) -> torch.Tensor:
        corners = [(i, j, k) for i in (0, 2) for j in (0, 2) for k in (0, 2)]
        return torch.stack([x[0, 0, i : i + 2, j : j + 2, k : k + 2].flatten() for i, j, k in corners])

    right = input_side(model.down.weight.flatten(1), passes, patches)
    agree(measured(workload, "down", relations="agop_nfm,g_vs_h,g_vs_m,h_vs_m"), right)


@pytest.mark.parametrize(("make", "site"), [(lstm, "lstm.weight_ih_l0"), (gru, "lstm.weight_ih_l0_reverse")])
def test_the_input_weights_of_a_recurrent_layer_are_seen_at_every_step(make, site):
    """H and M need no gradient: h are the steps of the sequence."""
    workload = make()
    model = workload.model().double()
    (batch,) = workload.batches("train", batch_size=EXAMPLES)
    h = batch.double().inputs.flatten(0, 1)
    W = dict(model.named_parameters())[site].detach()
    right = cosine(h.T @ h, W.T @ W)
    model.float()
    assert measured(workload, site, relations="h_vs_m")["h_vs_m"] == pytest.approx(right, abs=1e-5)


def test_an_expert_sees_the_tokens_that_the_router_sends_to_it():
    """H of each expert, from the router's own choice."""
    workload = mixtral()
    model = copy.deepcopy(workload.model()).double().eval()
    kept = []
    block = model.model.layers[0].mlp.experts
    block.register_forward_pre_hook(lambda _module, args: kept.append(args[:2]))
    (batch,) = workload.batches("train", batch_size=EXAMPLES)
    workload.outputs(model, batch.double())
    hidden, chosen = (part.detach() for part in kept[0])
    for expert in range(4):
        H = sum(torch.outer(h, h) for h, places in zip(hidden, chosen.tolist(), strict=True) if expert in places)
        W = block.gate_up_proj[expert].detach()
        site = f"model.layers.0.mlp.experts.gate_up_proj.{expert}"
        found = measured(workload, site, relations="h_vs_m")
        assert found["h_vs_m"] == pytest.approx(cosine(H, W.T @ W), abs=1e-5)
