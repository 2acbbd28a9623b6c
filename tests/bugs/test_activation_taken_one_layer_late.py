"""Fault 1: for layers ≥ 2 the activation was taken one layer too late, silently (the shape is the same);
the gradient was that of a network which applies the layer twice."""

import pytest
import torch

from nfa import reference
from nfa.observe.passes import observe, site_weights
from nfa.observe.records import Part, Source
from nfa.registry.families.mlp.model import MLP
from tests.support.toy_models import half_square, site_matrices, toy


def deep():
    net = MLP(4, 3, width=6, depth=4)
    with torch.no_grad():
        for index, layer in enumerate(net.layers):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(index)) / 2)
    return toy(net, 9, 4, sites=[f"layers.{index}" for index in range(5)])


@pytest.mark.parametrize("index", range(5))
def test_agop_of_every_layer_is_that_of_its_own_input_and_not_of_the_next_layers(index):
    toys = deep()
    initial = site_weights(toys, toys.net, list(toys.sites_named))
    found = site_matrices(toys.net, toys, toys.batches("train", batch_size=4), initial)
    matrix = found[f"layers.{index}"]["agop"].dense()
    exact = [reference.agop(reference.jacobians(toys.net, name, toys.inputs)) for name in toys.sites_named]
    torch.testing.assert_close(matrix, exact[index], rtol=1e-9, atol=1e-12)
    if 1 <= index < 4:
        assert reference.cosine(matrix, exact[index + 1]) < 0.99


@pytest.mark.parametrize("index", range(5))
def test_input_and_gradient_of_every_layer_are_its_own(index):
    class Recorder:
        source, needs = Source.LOSS, frozenset({Part.INPUTS})

        def __init__(self) -> None:
            self.heard = []

        def update(self, record) -> None:
            self.heard.append(record)

    toys, ear = deep(), Recorder()
    name = f"layers.{index}"
    observe(toys.net, toys, toys.batches("train", batch_size=4), {name: lambda _: [ear]})
    hidden = toys.inputs
    for layer in toys.net.layers[:index]:
        hidden = torch.relu(layer(hidden)).detach()
    delta = reference.loss_gradients(toys.net, name, toys.inputs, toys.targets, half_square)
    torch.testing.assert_close(torch.cat([record.inputs for record in ear.heard])[:, 0], hidden)
    torch.testing.assert_close(torch.cat([record.gradient for record in ear.heard]), delta, rtol=1e-9, atol=1e-12)
