"""A fault of GHM programs: targets −1 and 1 were used as if they were 0 and 1, so that g was up to 2 and right answers
had a gradient. Here labels are class indices, and 0 and 1 are made of them in one place."""

import pytest
import torch

from nfa.registry.families.mlp.ghm import TERMS
from nfa.workload import Batch
from tests.support.toy_models import tiny_classifier

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
