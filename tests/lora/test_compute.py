"""Operations of a training step: those that torch counts, but for attention's scores and unneeded gradients."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nfa.registry.families.language.adapters import add_adapter, matching_modules
from nfa.registry.families.language.compute import start_operations, training_operations
from nfa.registry.families.language.config import TARGETS
from tests.support.llamas import SETTINGS, llama

N, S = 3, 10


def counted(model: Any) -> tuple[int, int]:
    """Operations that torch counts in a forward and a backward pass: in linear layers, and in attention."""
    model.set_attn_implementation("eager")  # torch does not count the other one on a CPU
    with FlopCounterMode(display=False) as counter:
        model(torch.ones(N, S, dtype=torch.int64)).logits.sum().backward()
    by_kind = {str(kind): count for kind, count in counter.get_flop_counts()["Global"].items()}
    attention = sum(count for kind, count in by_kind.items() if "attention" in kind or "bmm" in kind)
    return sum(by_kind.values()) - attention, attention


def weights(model: torch.nn.Module, ends: str) -> int:
    return sum(layer.weight.numel() for name, layer in model.named_modules() if name.endswith(ends))


def test_trained_in_full_it_costs_six_operations_a_weight_and_token() -> None:
    model = llama()
    found = training_operations(model, N * S)
    linear, attention = counted(model)
    assert attention > 0
    assert found == linear == 6 * N * S * sum(layer.weight.numel() for layer in _linear(model))


def test_with_an_adapter_what_differs_is_the_gradient_of_the_first_inputs() -> None:
    """The first block's inputs need none: autograd leaves q, k and v and the A's of these out."""
    model = add_adapter(llama(), TARGETS.split(","), rank=4, alpha=4, dropout=0.0, init="random", seed=0)
    found, (linear, _) = training_operations(model, N * S), counted(model)
    first = ("q_proj", "k_proj", "v_proj")
    unneeded = sum(
        layer.weight.numel()
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and any(part in name for part in first) and "lora_B" not in name
    )
    assert found - linear == 2 * N * S * unneeded
    assert unneeded < 0.2 * sum(layer.weight.numel() for layer in _linear(model))


@pytest.mark.parametrize("targets", [["q_proj"], TARGETS.split(",")])
def test_frozen_weights_cost_four_operations_and_trained_ones_six(targets: list[str]) -> None:
    model = llama().requires_grad_(False)
    for layer in matching_modules(model, targets).values():
        layer.weight.requires_grad_(True)
    trained = sum(layer.weight.numel() for layer in _linear(model) if layer.weight.requires_grad)
    frozen = sum(layer.weight.numel() for layer in _linear(model)) - trained
    assert training_operations(model, 7) == 7 * (4 * frozen + 6 * trained)
    assert trained == sum(weights(model, end) for end in targets)


def test_an_embedding_costs_nothing_and_its_tied_readout_does() -> None:
    model = llama()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(layer.weight.numel() for layer in _linear(model)) == sum(
        weight.numel() for name, weight in model.named_parameters() if "norm" not in name
    )
    assert SETTINGS.layers == 1


def _linear(model: torch.nn.Module) -> list[torch.nn.Linear]:
    return [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]


@pytest.mark.parametrize(
    ("init", "expected"),
    [("pissa", 6 * 5 * 3**2 + 20 * 3**3 + 26 * 4**3), ("olora", 4 * (5 * 3 * 3 + 4**3)), ("random", 0), ("svd", 0)],
)
def test_a_start_that_is_a_part_of_the_weights_costs_their_decomposition(init, expected):
    assert start_operations(init, [(3, 5), (4, 4)]) == expected
