"""How often intervals of two standard errors hold the value of all examples; benchmarks/coverage.py at small size."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks import coverage
from nfa.registry.datasets.image_files import locate
from nfa.registry.datasets.images import load
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.workload import MLPClassifier


@pytest.fixture
def workload() -> MLPClassifier:
    data = load("digits", locate("digits"))
    ids = list(range(len(data.train_labels)))
    return MLPClassifier(TrainConfig(width=24, depth=2), data, {"train": ids, "val": [], "test": [], "probe": ids})


@pytest.mark.parametrize("steps", [0, 60])
def test_intervals_hold_the_value_of_all_examples_as_often_as_they_say(
    workload: MLPClassifier, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over 40 probes and up to 18 values, of which many are correlated; nominal are 95 %."""
    monkeypatch.setattr(coverage, "PROBE", 256)
    model = workload.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    batches = list(workload.batches("train", batch_size=128))
    for step in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(batches[step % len(batches)].inputs), batches[step % len(batches)].targets).backward()
        optimizer.step()
    found, exact = coverage.covered(workload, model, 40)
    given = [one for held in found.values() for one in held if one is not None]
    assert len(given) > 0.3 * 40 * len(exact)
    assert 0.91 <= sum(given) / len(given) <= 0.98
