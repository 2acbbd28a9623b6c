"""Faults of training programs: losses, optimizers and randomness; and tests that fail with them."""

import random

import numpy as np
import pytest
import torch
import torch.nn as nn

from nfa.measures.evaluation import evaluate
from nfa.observe.passes import site_weights
from nfa.registry.families.mlp.ghm import TERMS, Harmonised, Terms
from nfa.registry.training.loop import Training
from nfa.registry.training.optimizer_parameters import OptimizerParameters
from nfa.registry.training.optimizers import Group, build
from nfa.workload import Batch, MeanLoss
from tests.support.toy_models import site_matrices, tiny_classifier

# The analysis seeded the global generators in the training loop, so that later epochs depended on it; and it re-split
# the data at each checkpoint, so that validation images leaked in.


def test_drawing_and_seeding_between_epochs_and_analysing_or_not_leave_the_weights_bitwise_the_same():
    def trained(*, disturbed: bool) -> list[torch.Tensor]:
        workload = tiny_classifier("muon")
        model = workload.model()
        initial = site_weights(workload, model, ["layer_0", "layer_1"])

        def after_epoch(epoch: int) -> None:
            if disturbed:
                random.seed(epoch), np.random.seed(epoch), torch.manual_seed(epoch)
                site_matrices(model, workload, workload.batches("probe", batch_size=7), initial)

        Training(workload, model, workload.optimizers(model), batch_size=10, seed=1).run(3, after_epoch)
        return list(model.parameters())

    for one, other in zip(trained(disturbed=True), trained(disturbed=False), strict=True):
        assert torch.equal(one, other)


def test_the_examples_of_a_split_are_the_stored_ones_whatever_the_generators_say():
    workload, seen = tiny_classifier(), []
    for seed in (0, 1):
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        seen.append([batch.ids.tolist() for batch in workload.batches("probe", batch_size=10)])
    assert seen[0] == seen[1]
    assert {example for batch in seen[0] for example in batch}.isdisjoint(workload.ids("val"))


# Muon variants that rescale W at every step put a rescaling into W − W⁽⁰⁾; torch's own decays by default.


def test_the_default_muon_moves_weights_by_its_update_alone():
    """A large W and a small gradient: W − W⁽⁰⁾ is that of a W⁽⁰⁾ = 0, with no part along W⁽⁰⁾."""
    gradient = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    moves = []
    for start in (torch.zeros(8, 6), 16 * torch.eye(8)[:, :6]):
        weight, readout = nn.Parameter(start.clone()), nn.Parameter(torch.zeros(2, 2))
        asked = OptimizerParameters(optimizer="muon", lr=0.5, momentum=0.95)
        optimizer = build(asked, [Group([weight], [readout])])
        for _ in range(3):
            weight.grad, readout.grad = gradient.clone(), torch.zeros(2, 2)
            optimizer.step()
        moves.append(weight.detach() - start)
    assert moves[0].norm() > 1
    torch.testing.assert_close(moves[1], moves[0], rtol=1e-4, atol=1e-5)


def test_a_run_of_muon_decays_nothing_unless_asked():
    workload = tiny_classifier("muon")
    parts = workload.optimizers(workload.model()).parts
    assert {group["weight_decay"] for part in parts.values() for group in part.param_groups} == {0.0}


# The train loss of epoch 0 was an evaluation's mean, later ones were running means over a changing model.


def test_the_loss_of_every_epoch_is_that_of_the_model_as_it_stands_then():
    workload = tiny_classifier(lr=0.5)
    model, found, running = workload.model(), [], []
    losses = workload.losses

    def exact() -> float:
        inputs, labels = (pool.double() for pool in workload._pools["train"])
        hidden = inputs[:48]
        *weights, readout = [layer.weight.detach().double() for layer in model.layers]
        for weight in weights:
            hidden = torch.relu(hidden @ weight.T)
        return float((hidden @ readout.T - torch.eye(3, dtype=torch.float64)[labels[:48].long()]).square().mean())

    def after_epoch(_: int) -> None:
        workload.losses = losses
        batches = workload.batches("train", batch_size=7)
        found.append((evaluate(model, workload, batches)["loss"], exact()))
        workload.losses = lambda outputs, batch: remember(losses(outputs, batch))

    def remember(values: torch.Tensor) -> torch.Tensor:
        running.append(float(values.detach().mean()))
        return values

    objective = MeanLoss(lambda outputs, batch: workload.losses(outputs, batch))
    optimizers = workload.optimizers(model)
    Training(workload, model, optimizers, batch_size=10, seed=1, objective=objective).run(3, after_epoch)
    for value, expected in found:
        assert value == pytest.approx(expected, rel=1e-5)
    assert len(running) == 15
    first_epoch = sum(running[:5]) / 5
    assert first_epoch != pytest.approx(found[1][0], rel=1e-4)


# Weights N/R_j were not divided by the number of bins that hold something, so that the loss of a batch was several
# times its examples' losses, and how many times changed from batch to batch.

NORMS = {
    "one bin": [0.05] * 6,
    "two bins": [0.05] * 5 + [0.95],
    "every example in a bin of its own": [0.05, 0.15, 0.35, 0.55, 0.75, 0.95],
    "one example": [0.45],
}


@pytest.mark.parametrize("momentum", [0.0, 0.75])
@pytest.mark.parametrize("alpha", [0.0, 0.75, 1.0])
def test_where_every_example_has_the_same_loss_that_is_the_loss_of_every_batch(alpha, momentum):
    objective = Harmonised(lambda norms, losses: Terms(norms, losses), bins=10, momentum=momentum, alpha=alpha)
    for norms in NORMS.values():
        losses = torch.full((len(norms),), 2.5, dtype=torch.float64)
        value = objective(torch.tensor(norms), Batch(None, losses, torch.arange(len(norms))))
        assert float(value) == pytest.approx(2.5, rel=1e-12)
        objective.step()


@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
def test_a_batch_of_twice_the_same_examples_has_the_same_loss(loss):
    workload = tiny_classifier(loss=loss, weighting="ghm")
    values = []
    for ids in (list(range(10)), list(range(10)) * 2):
        (batch,) = workload.batches("train", batch_size=20, ids=ids)
        values.append(workload.objective()(workload.outputs(workload.model(), batch), batch).item())
    assert values[0] == pytest.approx(values[1], rel=1e-6)


# The last bin ended before 1, so that an example with g = 1, the most wrong one there is, was in no bin, had no
# weight and was not learned from.


@pytest.mark.parametrize("loss", TERMS)
@pytest.mark.parametrize("bins", [1, 3, 10])
def test_the_most_wrong_example_is_counted_weighed_and_learned_from(loss, bins):
    """float32: 1 − p and |d|/√(d² + μ²) round to exactly 1."""
    logits = torch.tensor([[200.0, 0.0], [3.0, 0.0], [200.0, 0.0], [0.5, 0.0]], requires_grad=True)
    batch = Batch(None, torch.tensor([1, 0, 0, 0]), torch.arange(4))
    norms, losses = TERMS[loss](logits, batch.targets)
    assert norms.max() == 1
    objective = Harmonised(TERMS[loss], bins=bins, momentum=0.0, alpha=1.0)
    (gradient,) = torch.autograd.grad(objective(logits, batch), logits)
    assert gradient[0].abs().max() > 0.05
    histogram = objective.histogram()
    histogram.update(logits, batch)
    values = histogram.values()
    assert histogram.counts.sum() == losses.numel()
    assert sum(values[f"ghm/share_bin_{j}"] for j in range(bins)) == 1
    assert values[f"ghm/share_bin_{bins - 1}"] >= 1 / losses.numel()
    assert values[f"ghm/weight_bin_{bins - 1}"] > 0


# Targets −1 and 1 were used as if they were 0 and 1, so that g was up to 2 and right answers had a gradient. Here
# labels are class indices, and 0 and 1 are made of them in one place.

CONFIDENT = 30.0  # a logit whose softmax is 1


@pytest.mark.parametrize("loss", TERMS)
def test_the_right_answer_has_neither_loss_nor_gradient_and_every_norm_is_between_0_and_1(loss):
    """With the labels that the workload gives."""
    workload = tiny_classifier(loss=loss, weighting="ghm")
    for batch in workload.batches("train", batch_size=10):
        hot = torch.eye(3)[batch.targets]
        outputs = ((CONFIDENT if loss == "cross-entropy" else 1) * hot).requires_grad_()
        norms, losses = TERMS[loss](outputs, batch.targets)
        assert norms.max() < 1e-6
        assert losses.max() < 1e-6
        (gradient,) = torch.autograd.grad(workload.objective()(outputs, batch), outputs)
        assert gradient.abs().max() < 1e-6
        for wrong in (-outputs.detach(), CONFIDENT * (1 - 2 * hot), 0 * hot):
            norms, losses = TERMS[loss](wrong, batch.targets)
            assert 0 <= norms.min() <= norms.max() <= 1
            assert losses.min() >= 0
            assert losses.max() > 0.5


@pytest.mark.parametrize("loss", TERMS)
def test_labels_of_minus_one_are_refused(loss):
    labels = torch.tensor([1, -1, 1])
    with pytest.raises((IndexError, RuntimeError), match=r"-1|non-negative"):
        tiny_classifier(loss=loss, weighting="ghm").objective()(torch.zeros(3, 2), Batch(None, labels, torch.arange(3)))
