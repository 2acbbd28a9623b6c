"""Adapters: every way to start one, what is taken out of the base, what is written, and what PEFT loads again."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn as nn
from torch import Tensor

from nfa import reference, seeding
from nfa.errors import Refusal
from nfa.registry.families.language import adapters
from nfa.registry.families.language.base import tiny
from nfa.registry.families.language.config import INITS, RESIDUAL, TARGETS
from tests.support.llamas import llama

ALL = TARGETS.split(",")
WITH_PEFT = [init for init in INITS if init not in ("svd", "full")]
RANK, ALPHA = 4, 6.0  # no power of two: scaling rounds


def gpt2() -> nn.Module:
    """Its layers are Conv1D, which keep their weights transposed."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with seeding.untouched():
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=20, n_positions=16, n_embd=12, n_layer=1, n_head=2, use_cache=False)
        return GPT2LMHeadModel(config).eval()


def adapted(model: nn.Module, init: str = "random", targets: list[str] = ALL, **options: float) -> nn.Module:
    given = {"rank": RANK, "alpha": ALPHA, "dropout": 0.0, "seed": 1, **options}
    return adapters.add_adapter(model, targets, init=init, **given).eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(9)[None] + 3).logits


def drawn(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Random factors for an adapted model."""
    made = torch.Generator().manual_seed(seed)
    shapes = {name: tensor.shape for name, tensor in adapters.read_adapter(model).items()}
    return {name: 0.2 * torch.randn(shape, generator=made, dtype=torch.float64) for name, shape in shapes.items()}


# ---- starts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("init", WITH_PEFT)
def test_every_init_starts_at_the_base_and_leaves_its_weights(init: str, dtype: torch.dtype) -> None:
    base = llama().to(dtype)
    expected, before = logits(base), {name: weight.clone() for name, weight in base.state_dict().items()}
    model = adapted(base, init)
    for name, layer in adapters.adapted_modules(model).items():
        assert torch.equal(layer.get_base_layer().weight, before[f"{name}.weight"])
        assert layer.lora_A["default"].weight.dtype == layer.lora_B["default"].weight.dtype == dtype
    if init in RESIDUAL:
        assert (logits(model) - expected).abs().max() > 1e-2 * expected.abs().max()
        adapters.take_out(model)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    if init == "orthogonal":
        tolerance = 1e-5  # A and B are made orthogonal in float32
    assert (logits(model) - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("init", WITH_PEFT)
def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(init: str) -> None:
    torch.manual_seed(5)
    one = adapters.read_adapter(adapted(llama(), init))
    torch.manual_seed(6)
    same, other = (adapters.read_adapter(adapted(llama(), init, seed=seed)) for seed in (1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert all(torch.equal(one[name], other[name]) for name in one) is (init in RESIDUAL)


@pytest.mark.parametrize("init", WITH_PEFT)
def test_no_global_generator_moves(init: str) -> None:
    model = llama()
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    adapted(model, init)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def test_pissa_is_the_weights_own_largest_part() -> None:
    base = llama()
    weights = {name: weight.clone() for name, weight in base.state_dict().items()}
    found = adapters.read_adapter(adapted(base, "pissa"))
    for name in {key.rpartition(".lora_")[0] for key in found}:
        update = reference.lora_update(found[f"{name}.lora_B.weight"], found[f"{name}.lora_A.weight"], ALPHA, RANK)
        u, s, vh = reference.truncated_svd(weights[f"{name}.weight"], RANK)
        torch.testing.assert_close(update, (u * s) @ vh, rtol=0, atol=1e-5 * float(s[0]))


def test_only_the_adapter_is_trained() -> None:
    model = adapted(llama())
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(trained) == 2 * len(ALL)
    assert all(".lora_" in name for name in trained)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_taken_out_and_adapter_together_are_the_base(dtype: torch.dtype) -> None:
    base = llama().to(dtype)
    expected = logits(base)
    model = adapted(base)
    adapters.write_adapter(model, drawn(model))
    assert (logits(model) - expected).abs().max() > 1e-2 * expected.abs().max()
    adapters.take_out(model)
    assert (logits(model) - expected).abs().max() <= (1e-12 if dtype == torch.float64 else 1e-5) * expected.abs().max()


def test_put_into_the_weights_it_is_the_adapted_model() -> None:
    for make, targets in ((llama, ALL), (gpt2, ["c_attn", "c_proj", "c_fc"])):
        model = adapted(make().double(), targets=targets)
        factors = drawn(model)
        adapters.write_adapter(model, factors)
        plain = make().double()
        adapters.put_in(plain, factors, ALPHA / RANK)
        torch.testing.assert_close(logits(plain), logits(model), rtol=1e-12, atol=1e-14)


# ---- reading and writing


def test_what_is_written_is_read_by_the_paths_of_the_base() -> None:
    base = llama()
    shapes = {name: tuple(weight.shape) for name, weight in base.state_dict().items()}
    model = adapted(base)
    factors = {name: tensor.float() for name, tensor in drawn(model).items()}
    adapters.write_adapter(model, factors)
    found = adapters.read_adapter(model)
    assert found.keys() == factors.keys()
    assert all(torch.equal(found[name], factors[name]) for name in factors)
    for name in {key.rpartition(".lora_")[0] for key in found}:
        o, i = shapes[f"{name}.weight"]
        assert (found[f"{name}.lora_A.weight"].shape, found[f"{name}.lora_B.weight"].shape) == ((RANK, i), (o, RANK))
    adapters.adapted_modules(model)[name].lora_A["default"].weight.data.zero_()
    assert found[f"{name}.lora_A.weight"].any(), "a copy"


def test_factors_that_fit_no_target_and_targets_without_factors_are_both_named() -> None:
    model = adapted(llama())
    factors = drawn(model)
    before = adapters.read_adapter(model)
    lost = "model.layers.0.mlp.up_proj"
    wrong = {name.replace(lost, f"transformer.{lost}"): tensor for name, tensor in factors.items()}
    with pytest.raises(Refusal) as refused:
        adapters.write_adapter(model, wrong)
    assert f"targets without factors: {lost}; factors without a target: transformer.{lost}" in str(refused.value)
    narrower = {name: tensor[:3] if "lora_A" in name else tensor[:, :3] for name, tensor in factors.items()}
    with pytest.raises(Refusal, match=r"lora_A.weight with shape \[3, 16\]\n  allowed: shape \[4, 16\]"):
        adapters.write_adapter(model, narrower)
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapters.read_adapter(model).items())


def test_long_lists_of_names_are_cut_and_counted() -> None:
    model = adapted(tiny.untrained(tiny.TinySettings(hidden=16, heads=2, key_value_heads=1, intermediate=24, layers=2)))
    with pytest.raises(Refusal, match=r"targets without factors: .* … \(14\); factors without a target: none"):
        adapters.write_adapter(model, {})


def test_targets_that_fit_nothing_are_refused_with_those_that_would() -> None:
    for targets in (["q_proj", "query"], ["proj"], ["embed_tokens"]):
        with pytest.raises(Refusal, match=f"targets='{targets[-1]}', which no module fits") as refused:
            adapters.matching_modules(llama(), targets)
        assert "down_proj, gate_proj" in str(refused.value)


def test_a_target_is_the_end_of_a_path_in_whole_names() -> None:
    found = adapters.matching_modules(llama(), ["self_attn.q_proj", "model.layers.0.mlp.up_proj"])
    assert list(found) == ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"]


def test_weights_that_another_module_has_too_are_refused() -> None:
    with pytest.raises(Refusal, match=r"targets='lm_head', whose weights are tied to another module's"):
        adapters.matching_modules(llama(), ["q_proj", "lm_head"])


# ---- Conv1D


@pytest.mark.parametrize("init", ["random", "pissa"])
def test_conv1d_layers_are_adapted_and_start_at_the_base(init: str) -> None:
    base = gpt2()
    expected = logits(base)
    model = adapted(base, init, targets=["c_attn", "c_fc"])
    adapter = adapters.read_adapter(model)
    assert adapter["transformer.h.0.attn.c_attn.lora_B.weight"].shape == (36, RANK)
    if init == "pissa":
        adapters.take_out(model)
    assert (logits(model) - expected).abs().max() <= 1e-5 * expected.abs().max()


# ---- final models


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_saved_adapter_gives_the_same_logits_on_the_pristine_base(make, residual: bool, tmp_path: Path) -> None:
    from peft import PeftModel

    targets = ALL if make is llama else ["c_attn", "c_fc"]
    model = adapted(make(), targets=targets)
    initial, moved = ({name: t.float() for name, t in drawn(model, seed).items()} for seed in (0, 1))
    if residual:
        adapters.write_adapter(model, initial)
        adapters.take_out(model)
    adapters.write_adapter(model, moved)
    joined = adapters.over_pristine(adapters.read_adapter(model), initial if residual else None)
    assert len(joined[next(name for name in joined if "lora_A" in name)]) == RANK * (1 + residual)
    adapters.save_adapter(tmp_path, joined, scaling=ALPHA / RANK, targets=targets, base="base")
    loaded = PeftModel.from_pretrained(make(), tmp_path).eval()
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-5, atol=1e-6)


def test_over_the_pristine_base_the_update_is_the_difference_of_the_products() -> None:
    model = adapted(llama())
    start, now = drawn(model, 0), drawn(model, 1)
    joined = adapters.over_pristine(now, start)
    for name in adapters.adapted_modules(model):
        found, first, last = (
            reference.lora_update(each[f"{name}.lora_B.weight"], each[f"{name}.lora_A.weight"], 1, 1)
            for each in (joined, start, now)
        )
        torch.testing.assert_close(found, last - first)
