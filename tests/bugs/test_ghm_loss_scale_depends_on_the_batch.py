"""A fault of GHM programs: weights N/R_j were not divided by the number of bins that hold something, so that the loss
of a batch was several times its examples' losses, and how many times changed from batch to batch."""

import pytest
import torch

from nfa.registry.families.mlp.ghm import Harmonised, Terms
from nfa.workload import Batch
from tests.support.toy_models import tiny_classifier

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
