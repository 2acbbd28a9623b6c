"""Fault 10: the train loss of epoch 0 was an evaluation's mean, later ones were running means over a changing model."""

import pytest
import torch

from nfa.measures.evaluation import evaluate
from nfa.registry.training.loop import Training
from nfa.workload import MeanLoss
from tests.support.toy_models import tiny_classifier


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
