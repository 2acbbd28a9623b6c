"""A fault of GHM programs: the last bin ended before 1, so that an example with g = 1, the most wrong one there is, was
in no bin, had no weight and was not learned from."""

import pytest
import torch

from nfa.registry.families.mlp.ghm import TERMS, Harmonised
from nfa.workload import Batch


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
