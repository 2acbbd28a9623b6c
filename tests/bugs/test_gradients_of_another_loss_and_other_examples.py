"""A fault of gradient programs: the analysis had a loss of its own and drew batches anew at each checkpoint, unseeded
and in training mode, so that dropout and moving batch statistics were in what it compared."""

import random

import numpy as np
import pytest
import torch

from nfa import reference
from nfa.measures.evaluation import record_outputs
from nfa.measures.gradient_gram import GradientGram, choose_parameters
from tests.support.gradient_direction_runs import array, directed
from tests.support.toy_models import Noisy, seeded, tiny_classifier, toy

N = 24


@pytest.mark.parametrize("weighting", ["none", "ghm"])
@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
def test_the_mean_of_the_gradients_is_that_of_what_was_trained_on(loss, weighting):
    """1ᵀK1/n² = ‖∇ objective(probe)‖²."""
    workload = tiny_classifier(loss=loss, weighting=weighting)
    model, ids, seen = workload.model(), workload.ids("probe")[:N], []
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # so that examples differ in their norms
    (batch,) = workload.batches("train", batch_size=N, ids=ids)
    record_outputs(model, workload, [batch], lambda *heard: seen.append(heard))
    losses = workload.objective().fixed(seen)
    K = GradientGram(workload, ids, choose_parameters(workload, model))(model, losses)
    workload.objective()(workload.outputs(model, batch), batch).backward()
    squared = sum(float(parameter.grad.double().square().sum()) for parameter in model.parameters())
    assert float(K.mean()) == pytest.approx(squared, rel=1e-4)
    plain = GradientGram(workload, ids, choose_parameters(workload, model))(model)
    assert torch.allclose(plain, K, rtol=1e-3) == (weighting == "none")


def test_nothing_drops_out_and_no_batch_statistics_move_or_are_used():
    toys = toy(seeded(Noisy, 4, 6, 3), N, 4, sites=["first"])
    toys.net.train()
    modes = {name: module.training for name, module in toys.net.named_modules()}
    state = {name: value.clone() for name, value in toys.net.state_dict().items()}
    gram = GradientGram(toys, range(N), choose_parameters(toys, toys.net))
    found = [gram(toys.net) for _ in range(2)]
    assert torch.equal(*found)
    batch = next(toys.batches("train", batch_size=N))
    exact = reference.gradient_gram(reference.example_gradients(toys.net, toys, batch))
    torch.testing.assert_close(found[0], exact, rtol=1e-9, atol=1e-12)
    assert {name: module.training for name, module in toys.net.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in toys.net.state_dict().items())


def test_the_examples_are_the_first_of_the_stored_probe_in_its_order_at_every_checkpoint(changeable):
    store, source, found = changeable.store, changeable.run_id, []
    asked = {"run_id": source, "n": N, "device": "cpu"}
    for seed, epochs in enumerate(("1,2,4", "2,4")):  # another list is another analysis: nothing is copied
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        found.append(directed(store, epochs=epochs, **asked))
    probe = store.json(source, "example_ids.json")["probe"]
    assert [store.json(run_id, "config.json")["examples"] for run_id in found] == [probe[:N]] * 2
    for epoch in (2, 4):
        for key in ("cosines", "norms", "losses", "kept", "draws"):
            np.testing.assert_array_equal(*(array(store, run_id, key, epoch) for run_id in found))
