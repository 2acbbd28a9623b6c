"""Fault 5: the analysis re-implemented the forward pass with a relu, whatever the network's activation was."""

import pytest
import torch

from nfa import reference
from nfa.observe.passes import site_weights
from nfa.registry.families.mlp.model import ACTIVATIONS, MLP, initialise
from tests.support.toy_models import site_matrices, toy


def agop(activation: str) -> tuple[torch.Tensor, torch.Tensor]:
    net = MLP(4, 3, width=6, depth=3, activation=activation)
    initialise(net, "default", torch.Generator().manual_seed(0))
    toys = toy(net, 9, 4, sites=["layers.0"])
    initial = site_weights(toys, toys.net, ["layers.0"])
    found = site_matrices(toys.net, toys, toys.batches("train", batch_size=4), initial)["layers.0"]["agop"].dense()
    return found, reference.agop(reference.jacobians(toys.net, "layers.0", toys.inputs))


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "relu"])
def test_the_analysis_follows_the_networks_own_activation(activation):
    found, expected = agop(activation)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)
    assert (found - agop("relu")[0]).norm() > 0.01 * found.norm()
