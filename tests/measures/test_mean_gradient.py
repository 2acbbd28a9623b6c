"""The gradient of the mean loss against one example at a time, for layers of every type; it leaves no trace."""

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.measures.mean_gradient import mean_gradient
from nfa.registry.families.eeg.conformer import Conformer, ConformerOptions
from nfa.registry.families.eeg.workload import EEGDecoder
from nfa.workload import Batch
from tests.support.layer_types import CASES, networks
from tests.support.snapshots import assert_same, snapshot
from tests.support.toy_models import Noisy, Tied, Toy, layers, seeded, toy


class Mixed(nn.Module):
    """Convolution, both normalisations, a layer that stands in two places, one without use and a frozen one."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(features, hidden, 3, padding="same"), nn.LayerNorm(hidden)
        self.batch_norm, self.unused = nn.BatchNorm1d(hidden), nn.Linear(2, 3)
        self.frozen = nn.Linear(hidden, hidden).requires_grad_(False)
        self.here = nn.Linear(hidden, hidden)
        self.there, self.dropout = self.here, nn.Dropout(0.5)
        self.readout = nn.Linear(hidden, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm(torch.tanh(self.conv(inputs.transpose(1, 2))).transpose(1, 2))
        hidden = self.batch_norm(self.here(hidden).transpose(1, 2)).transpose(1, 2)
        outputs: Tensor = self.readout(torch.tanh(self.there(self.dropout(self.frozen(hidden)))).mean(dim=1))
        return outputs


def mixed(n: int = 5, features: int = 3, hidden: int = 4, positions: int = 6) -> Toy:
    """With batch statistics that are not those of a new layer."""
    net = seeded(Mixed, features, hidden)
    net.batch_norm.running_mean.normal_(generator=torch.Generator().manual_seed(1))
    net.batch_norm.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
    return toy(net, n, positions, features, sites=["conv"])


def assert_agrees(toys: Toy, batch_size: int) -> None:
    """With the reference, to 1e-9 of the largest entry of all."""
    found = mean_gradient(toys, toys.net, toys.batches("train", batch_size=batch_size))
    expected = reference.mean_gradients(toys.net, toys, whole(toys))
    assert list(found) == list(expected)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert found[name].dtype == torch.float64
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-9 * largest, msg=name)


def whole(toys: Toy) -> Batch:
    return next(toys.batches("train", batch_size=len(toys.inputs)))


@pytest.mark.parametrize("kind", CASES)
def test_agrees_with_one_example_at_a_time_for_every_layer_type(kind: str) -> None:
    @settings(max_examples=12)
    @given(networks(CASES[kind]), st.integers(1, 5), st.integers(1, 6))
    def agrees(network: tuple, n: int, batch_size: int) -> None:
        net, case = network
        assert_agrees(toy(net, n, *case.shape, sites=list(case.sites)), batch_size)

    agrees()


@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 7))
@settings(max_examples=25)
def test_normalisations_shared_frozen_and_unused_parameters(
    n: int, features: int, hidden: int, positions: int, batch_size: int
) -> None:
    toys = mixed(n, features, hidden, positions)
    assert_agrees(toys, batch_size)
    found = mean_gradient(toys, toys.net, toys.batches("train", batch_size=batch_size))
    assert not {name for name in found if name.startswith(("frozen", "there"))}  # a shared one has its first name
    assert not found["unused.weight"].any()


def test_the_conformer_with_scaled_gradients() -> None:
    """Hand-made backward passes count as the model has them; each example its own loss."""
    options = ConformerOptions(3, 2, 8, 8, 2, 2, 3, 0.3, gradient_scale=3.0, output_grad_scale=0.5)
    net = seeded(Conformer, options).double()
    random = torch.Generator().manual_seed(0)
    eeg, envelope = (torch.randn(5, 12, c, generator=random, dtype=torch.float64) for c in (3, 1))
    workload = EEGDecoder.__new__(EEGDecoder)
    workload.config = type("Config", (), {"pearson_weight": 1.0})()
    batch = Batch((eeg, torch.tensor([0, 1, 1, 0, 1])), envelope, torch.arange(5))
    found = mean_gradient(workload, net, [batch.take([0, 1, 2]), batch.take([3, 4])])
    expected = reference.mean_gradients(net, workload, batch)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_another_loss_takes_the_place_of_the_workload_s() -> None:
    toys = mixed()

    def doubled(outputs: Tensor, batch: Batch) -> Tensor:
        return 2 * toys.losses(outputs, batch)

    once = mean_gradient(toys, toys.net, toys.batches("train", batch_size=2))
    twice = mean_gradient(toys, toys.net, toys.batches("train", batch_size=2), doubled)
    expected = reference.mean_gradients(toys.net, toys, whole(toys), doubled)
    for name, gradient in once.items():
        torch.testing.assert_close(twice[name], 2 * gradient, rtol=1e-12, atol=0)
        torch.testing.assert_close(twice[name], expected[name], rtol=1e-9, atol=1e-12)


def broken(*_: Tensor) -> Tensor:
    raise IndexError("a loss that fails")


@pytest.mark.parametrize("net", [Noisy, Tied, layers], ids=lambda net: net.__name__)
def test_leaves_no_trace(net: type) -> None:
    """Modes, gradients that are there, statistics, generators, versions of weights; also where it fails."""
    positions = (4,) if net is Tied else ()
    toys = toy(seeded(net, 3, 5, 2), 7, *positions, 3, sites=[])
    toys.net.train()
    optimizer = torch.optim.Adam([weight for weight in toys.net.parameters() if weight.requires_grad])
    toys.loss(toys.net(toys.inputs), toys.targets).mean().backward()
    optimizer.step()
    before = snapshot(toys, optimizer)
    mean_gradient(toys, toys.net, toys.batches("train", batch_size=3))
    assert_same(snapshot(toys, optimizer), before)
    toys.loss = broken
    with pytest.raises(IndexError):
        mean_gradient(toys, toys.net, toys.batches("train", batch_size=3))
    toys.loss = Toy.loss
    assert_same(snapshot(toys, optimizer), before)


def test_is_the_same_without_gradients_around_it() -> None:
    toys = mixed()
    expected = mean_gradient(toys, toys.net, toys.batches("train", batch_size=2))
    with torch.no_grad():
        found = mean_gradient(toys, toys.net, toys.batches("train", batch_size=2))
    assert_same(found, expected)


def test_float32_is_added_up_in_float64() -> None:
    """Many small batches lose nothing: the sum of equal examples is as exact as one of them."""
    net = seeded(layers, 3, 4, 2)
    toys = toy(net, 1, 3, sites=[], dtype=torch.float32)
    toys.inputs, toys.targets = toys.inputs.expand(3000, -1), toys.targets.expand(3000, -1)
    one = mean_gradient(toys, toys.net, toys.batches("train", batch_size=1, ids=[0]))
    many = mean_gradient(toys, toys.net, toys.batches("train", batch_size=1, ids=[0] * 300))
    for name, gradient in one.items():
        torch.testing.assert_close(many[name], gradient, rtol=1e-13, atol=0)
