"""Observations of all sites in one pass, against the reference's slower functions, each of one site."""

import copy

import pytest
import torch
import torch.nn as nn

from nfa import reference
from nfa.workload import Batch
from tests.support.toy_models import Sequences, Tied, half_square, layers, seeded, toy


def examples(toys) -> list[Batch]:
    (batch,) = toys.batches("train", batch_size=len(toys.inputs))
    return [batch.double().take([place]) for place in range(len(batch))]


@pytest.mark.parametrize(
    ("build", "sites"), [(Sequences, ["first", "second", "readout"]), (Tied, ["shared", "readout"])]
)
def test_they_are_what_the_functions_of_one_site_give(build, sites):
    toys = toy(seeded(build, 4, 5, 3), 4, 2, 4, sites=sites)
    found = reference.observations(toys.net, toys, examples(toys), {site: site for site in sites})
    assert list(found) == sites
    for site, each in found.items():
        W = toys.net.get_submodule(site).weight.detach()
        arguments = toys.net, site, toys.inputs
        expected = {
            "h": reference.site_inputs(*arguments),
            "z": reference.site_outputs(*arguments),
            "delta": reference.loss_gradients(*arguments, toys.targets, half_square),
        }
        for name, right in expected.items():
            torch.testing.assert_close(torch.stack([getattr(one, name) for one in each]), right, rtol=1e-12, atol=1e-12)
        J = torch.stack([one.K @ W for one in each])
        torch.testing.assert_close(J, reference.jacobians(*arguments), rtol=1e-12, atol=1e-12)


class Sometimes(nn.Module):
    """Uses a layer for examples of a positive first entry only, and another one for none."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.idle, self.readout = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.readout(torch.tanh(self.layer(x)) if x[0, 0] > 0 else x)


def test_an_example_for_which_a_site_is_not_called_has_no_positions_and_a_site_that_never_is_does_not_appear():
    toys = toy(seeded(Sometimes), 5, 3, sites=["readout"])
    toys.inputs[:, 0] = torch.tensor([1.0, -1, 1, -1, -1])
    found = reference.observations(
        toys.net, toys, examples(toys), {name: name for name in ("layer", "idle", "readout")}
    )
    assert list(found) == ["layer", "readout"]
    assert [len(one.h) for one in found["layer"]] == [1, 0, 1, 0, 0]
    assert found["layer"][1].K.shape == (0, 2, 3)
    assert [len(one.h) for one in found["readout"]] == [1] * 5


def test_examples_of_different_lengths_are_told_apart():
    toys = toy(seeded(Sequences, 4, 5, 3), 2, 3, 4, sites=["first"])
    long, short = examples(toys)
    short = Batch(short.inputs[:, :2], short.targets, short.ids)
    lengths = [len(one.h) for one in reference.observations(toys.net, toys, [long, short], {"first": "first"})["first"]]
    assert lengths == [3, 2]


def test_the_model_is_left_alone():
    toys = toy(seeded(layers, 4, 5, 3), 3, 4, sites=["0"])
    toys.net.train()
    before = copy.deepcopy(toys.net.state_dict())
    reference.observations(toys.net, toys, examples(toys), {"here": "0"})
    assert toys.net.training
    assert all(weight.requires_grad and weight.grad is None for weight in toys.net.parameters())
    assert not toys.net[0]._forward_hooks
    assert all(torch.equal(before[name], value) for name, value in toys.net.state_dict().items())
