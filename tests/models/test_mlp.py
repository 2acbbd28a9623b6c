"""The MLP of the literature: its names, sizes, initial weights and the closed form of deep linear networks."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa import reference
from nfa.observe.passes import site_weights
from nfa.registry.families.mlp.model import ACTIVATIONS, MLP, initialise
from tests.support.toy_models import site_matrices, tiny_classifier, toy


def drawn(inputs: int, classes: int, *, init: str, seed: int = 0, **sizes) -> MLP:
    model = MLP(inputs, classes, **sizes)
    initialise(model, init, torch.Generator().manual_seed(seed))
    return model


def test_parameters_are_the_named_bias_free_matrices():
    model = drawn(7, 3, width=5, depth=2, init="default")
    assert {name: tuple(weight.shape) for name, weight in model.named_parameters()} == {
        "layers.0.weight": (5, 7),
        "layers.1.weight": (5, 5),
        "layers.2.weight": (3, 5),
    }


def test_the_reference_network_has_7_350_272_parameters():
    with torch.device("meta"):
        model = MLP(3072, 10, width=1024, depth=5)
    assert sum(weight.numel() for weight in model.parameters()) == 7_350_272


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_forward_pass_is_matrices_with_the_named_activation_between(activation):
    expected = {
        "relu": lambda z: z.clamp(min=0),
        "sigmoid": lambda z: 1 / (1 + (-z).exp()),
        "leaky_relu": lambda z: torch.where(z > 0, z, 0.01 * z),
        "sine": lambda z: z.sin(),
        "tanh": lambda z: 1 - 2 / ((2 * z).exp() + 1),
        "identity": lambda z: z,
    }[activation]
    model = drawn(6, 2, width=5, depth=3, activation=activation, init="default").double()
    hidden = torch.randn(4, 6, dtype=torch.float64)
    outputs = model(hidden.view(4, 2, 3))
    *weights, readout = [layer.weight for layer in model.layers]
    for weight in weights:
        hidden = expected(hidden @ weight.T)
    torch.testing.assert_close(outputs, hidden @ readout.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("init", "factor"), [("default", 1.0), ("small", 0.5)])
def test_initial_weights_are_uniform_within_the_bound(init, factor):
    """Variance (2a)²/12 to 5 %, and the extremes close to ±a = ±factor/√in."""
    for layer in drawn(100, 60, width=60, depth=1, init=init).layers:
        bound = factor / math.sqrt(layer.in_features)
        assert float(layer.weight.detach().abs().max()) <= bound
        assert float(layer.weight.detach().abs().max()) > 0.99 * bound
        assert float(layer.weight.detach().var()) == pytest.approx(bound**2 / 3, rel=0.05)
        assert abs(float(layer.weight.detach().mean())) < 0.05 * bound


def test_small_weights_are_half_the_default_ones():
    default, small = (drawn(6, 3, width=5, depth=2, init=init) for init in ("default", "small"))
    for one, other in zip(default.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(one / 2, other, rtol=1e-6, atol=1e-8)


sizes = st.fixed_dictionaries({"width": st.integers(2, 12), "depth": st.integers(1, 4)})


@given(st.integers(2, 12), st.integers(2, 6), sizes, st.integers(0, 9))
@settings(max_examples=15)
def test_balanced_weights_are_balanced(inputs, classes, sizes, seed):
    """W_{l+1}ᵀ W_{l+1} = W_l W_lᵀ to 1e-5, with matrices that are not zero."""
    model = drawn(inputs, classes, init="balanced", seed=seed, **sizes)
    for before, after in pairwise(weight.detach().double() for weight in model.parameters()):
        torch.testing.assert_close(after.T @ after, before @ before.T, rtol=0, atol=1e-5)
        assert float(before.norm()) > 0.05


def test_balanced_weights_are_as_large_as_the_default_ones():
    """The largest singular value is the geometric mean of those of a default draw, the smallest of 3 is half of it."""
    default, balanced = (
        [torch.linalg.svdvals(weight.detach()) for weight in drawn(8, 3, width=6, depth=3, init=init).parameters()]
        for init in ("default", "balanced")
    )
    largest = math.prod(float(singular[0]) for singular in default) ** (1 / 4)
    for singular in balanced:
        assert singular[:3].tolist() == pytest.approx([largest, 0.75 * largest, 0.5 * largest], rel=1e-5)
        assert not (singular[3:] > 1e-5).any()


def test_default_weights_are_not_balanced():
    first, second, _ = (weight.detach() for weight in drawn(6, 4, width=5, depth=2, init="default").parameters())
    assert (second.T @ second - first @ first.T).abs().max() > 0.05


@pytest.mark.parametrize(("width", "depth"), [(6, 1), (5, 3), (12, 4)])
def test_a_balanced_deep_linear_network_has_the_nfm_in_closed_form(width, depth):
    """M at layer i is AGOP^(1/(L−i)) up to scale, L = depth + 1: cos(M^(L−i), AGOP) = 1. Tansley et al. 2025."""
    model = drawn(8, 3, width=width, depth=depth, activation="identity", init="balanced").double()
    names = [f"layers.{index}" for index in range(depth + 1)]
    toys = toy(model, 4, 8, sites=names)
    initial = site_weights(toys, model, names)
    matrices = site_matrices(model, toys, toys.batches("train", batch_size=4), initial)
    for index, name in enumerate(names):
        power = torch.linalg.matrix_power(reference.nfm(initial[name]), depth + 1 - index)
        assert reference.cosine(power, matrices[name]["agop"].dense()) == pytest.approx(1, abs=1e-6)
    wrong = reference.cosine(reference.nfm(initial[names[0]]), matrices[names[0]]["agop"].dense())
    assert wrong < 0.999


@pytest.mark.parametrize("init", ["default", "small", "balanced"])
def test_a_workloads_model_is_the_same_at_every_call_and_leaves_the_global_generator_alone(init):
    workload, before = tiny_classifier(init=init), torch.get_rng_state()
    first, second = workload.model(), workload.model()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    third = workload.model()
    for one, two, three in zip(first.parameters(), second.parameters(), third.parameters(), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
        assert one.data_ptr() != two.data_ptr()


def test_another_seed_is_another_model():
    first, second = (tiny_classifier(seed=seed).model() for seed in (1, 2))
    assert not torch.equal(first.layers[0].weight, second.layers[0].weight)
