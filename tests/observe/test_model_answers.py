"""What a model answers tells whether the code that makes it is still the same."""

import math

import pytest
import torch
import torch.nn as nn

from nfa.errors import Refusal
from nfa.observe.answers import answers, check_answers
from tests.support.toy_models import toy


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 40), nn.BatchNorm1d(40), nn.Dropout(0.5), nn.Linear(40, 60))


def test_answers_are_256_numbers_at_most_of_the_first_eight_examples():
    toys = toy(network(), 20, 5, sites=["0"])
    model = toys.net
    found = answers(toys, model)
    assert len(found) == 256
    with torch.no_grad():
        outputs = model.eval()(toys.inputs[list(toys.ids("probe"))[:8]]).flatten()
    assert found[0] == pytest.approx(outputs[0].item())
    assert found[-1] == pytest.approx(outputs[-1].item())


def test_asking_changes_nothing():
    toys = toy(network(), 20, 5, sites=["0"])
    model = toys.net.train()
    before, generator = {name: one.clone() for name, one in model.state_dict().items()}, torch.get_rng_state()
    answers(toys, model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_the_same_answers_pass_and_others_are_refused():
    check_answers([1.0, -20.0], [1.0 + 0.019, -20.0], "epoch 3")
    check_answers([], [1.0], "epoch 3")
    with pytest.raises(Refusal, match=r"whose answers are not those stored with epoch 3 \(they differ by 0.021"):
        check_answers([1.0, -20.0], [1.021, -20.0], "epoch 3")


@pytest.mark.parametrize("now", [[1.0], [], [1.0, math.nan], [1.0, 2.0, 3.0]])
def test_fewer_numbers_and_undefined_ones_are_other_answers(now: list[float]):
    with pytest.raises(Refusal, match="whose answers are not those stored"):
        check_answers([1.0, 2.0], now, "epoch 3")


def test_outputs_that_are_not_finite_are_no_answers():
    toys = toy(network(), 20, 5, sites=["0"])
    with torch.no_grad():
        toys.net[3].bias[0] = math.inf
    assert answers(toys, toys.net) == []
