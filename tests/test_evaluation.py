"""Evaluation: exact means over examples, whatever the batches; reduced losses refused."""

import math

import pytest
import torch

from nfa.errors import Refusal
from nfa.measures.evaluation import Evaluation, evaluate
from nfa.observe.passes import observe
from tests.support.toy_models import half_square, layers, seeded, tiny_classifier, toy


@pytest.mark.parametrize("batch_size", [1, 5, 48, 100])
def test_means_are_over_examples_however_they_are_batched(batch_size):
    """48 examples in batches of 5: the last batch of 3 weighs no more than its examples."""
    workload = tiny_classifier()
    model = workload.model()
    whole = next(workload.batches("train", batch_size=48))
    outputs = model(whole.inputs).detach().double()
    onehot = torch.eye(3, dtype=torch.float64)[whole.targets]
    expected = {
        "loss": float((outputs - onehot).square().mean()),
        "accuracy": float((outputs.argmax(dim=1) == whole.targets).double().mean()),
    }
    found = evaluate(model, workload, workload.batches("train", batch_size=batch_size))
    assert found == pytest.approx(expected, rel=1e-6)


def test_values_of_all_examples_are_added_in_float64():
    """A million ones and a 2⁻²⁰ would lose the latter in float32."""
    toys = toy(seeded(layers, 1, 1), 3, 1, sites=["0"], dtype=torch.float32)
    toys.loss = lambda outputs, _: torch.tensor([1e8, 1.0, 1.0])[: len(outputs)]
    found = evaluate(toys.net, toys, toys.batches("train", batch_size=3))
    assert found["loss"] * 3 == 1e8 + 2


def test_metrics_are_those_of_the_workload():
    toys = toy(seeded(layers, 2, 3), 7, 2, sites=["0"])
    found = evaluate(toys.net, toys, toys.batches("train", batch_size=2))
    assert set(found) == {"loss", "error"}
    expected = (toys.net(toys.inputs) - toys.targets).detach().abs().sum(dim=1).mean()
    assert found["error"] == pytest.approx(float(expected), rel=1e-12)


def test_listening_to_an_observation_gives_the_same_means_as_an_evaluation():
    toys = toy(seeded(layers, 2, 4, 3), 7, 2, sites=["0"])
    evaluation = Evaluation(toys)
    observe(toys.net, toys, toys.batches("train", batch_size=3), {"0": lambda _: []}, record_outputs=evaluation.update)
    assert evaluation.means() == evaluate(toys.net, toys, toys.batches("train", batch_size=3))
    assert evaluation.examples == 7


@pytest.mark.parametrize("batch_size", [2, 3])
def test_a_reduced_loss_is_refused(batch_size):
    toys = toy(seeded(layers, 2, 3), 6, 2, sites=["0"])
    toys.loss = lambda outputs, targets: half_square(outputs, targets).mean()
    with pytest.raises(Refusal, match=r"losses of shape \(\)"):
        evaluate(toys.net, toys, toys.batches("train", batch_size=batch_size))


def test_a_loss_that_is_not_finite_is_reported_as_such():
    toys = toy(seeded(layers, 2, 3), 6, 2, sites=["0"])
    toys.inputs[4] = math.inf
    found = evaluate(toys.net, toys, toys.batches("train", batch_size=4))
    assert not math.isfinite(found["loss"])


def test_nothing_heard_has_no_means():
    assert Evaluation(tiny_classifier()).means() == {}
