"""Fault 6: the analysis seeded the global generators in the training loop, so that later epochs depended on it;
and it re-split the data at each checkpoint, so that validation images leaked in."""

import random

import numpy as np
import torch

from nfa.observe.passes import site_weights
from nfa.registry.training.loop import Training
from tests.support.toy_models import site_matrices, tiny_classifier


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
