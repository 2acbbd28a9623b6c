"""Fault 8: the network's parameters were found by their position, so that only networks without biases worked."""

import torch
import torch.nn as nn
from torch import Tensor

from nfa import reference
from nfa.observe.passes import site_weights
from tests.support.toy_models import seeded, site_matrices, toy


class Unordered(nn.Module):
    """Biases, a normalisation, and layers declared in another order than they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.readout, self.second = nn.Linear(6, 3), nn.Linear(5, 6)
        self.scale, self.norm = nn.Parameter(torch.tensor(1.3)), nn.LayerNorm(6)
        self.first = nn.Linear(4, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.readout(self.norm(torch.relu(self.second(self.scale * torch.tanh(self.first(inputs))))))
        return outputs


def test_sites_are_found_by_name_whatever_else_the_network_holds():
    toys = toy(seeded(Unordered), 7, 4, sites=["first", "second", "readout"])
    initial = site_weights(toys, toys.net, list(toys.sites_named))
    found = site_matrices(toys.net, toys, toys.batches("train", batch_size=3), initial)
    assert list(found) == ["first", "second", "readout"]
    for name, matrices in found.items():
        exact = reference.agop(reference.jacobians(toys.net, name, toys.inputs))
        torch.testing.assert_close(matrices["agop"].dense(), exact, rtol=1e-9, atol=1e-12)
        weight = toys.net.get_submodule(name).weight.detach()
        torch.testing.assert_close(matrices["nfm"].dense(), reference.nfm(weight), rtol=1e-12, atol=1e-12)
