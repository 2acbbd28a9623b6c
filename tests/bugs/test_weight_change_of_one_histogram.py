"""Fault 3: a weight change of 0.0000, because the reader of event files kept one histogram of each name."""

import torch
from torch import nn

from nfa.measures.parameter_groups import relative_changes
from tests.support.toy_models import seeded, toy


def test_every_checkpoint_has_its_own_change_and_only_a_run_without_training_has_none() -> None:
    toys = toy(seeded(nn.Linear, 3, 2), 6, 3, sites=[""])
    weights = [{name: weight.detach().clone() for name, weight in toys.net.named_parameters()}]
    optimizer = torch.optim.SGD(toys.net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        toys.loss(toys.net(toys.inputs), toys.targets).mean().backward()
        optimizer.step()
        weights.append({name: weight.detach().clone() for name, weight in toys.net.named_parameters()})
    groups = {"all": ["weight", "bias"]}
    changes = [relative_changes(groups, weights[0], later)["all"] for later in weights]
    assert changes[0] == 0
    assert 0 < changes[1] < changes[2] < changes[3]
