"""Fault 4: gradients were those of a batch-mean loss: their scale depended on the batch size, and the last, smaller
batch was over-weighted."""

import pytest
import torch

from nfa.errors import Refusal
from nfa.measures.agop import Agop
from nfa.measures.evaluation import evaluate
from nfa.observe.passes import observe
from nfa.observe.records import Source
from tests.support.toy_models import half_square, layers, seeded, toy


def second_moment(batch_size: int) -> torch.Tensor:
    """Σ δᵀδ over the examples, as a measure of loss gradients adds it up."""

    class Moment:
        source, needs, total = Source.LOSS, frozenset(), 0

        def update(self, record) -> None:
            rows = record.gradient.flatten(0, 1)
            self.total = self.total + rows.T @ rows

    toys, moment = toy(seeded(layers, 4, 6, 3), 10, 4, sites=["0"]), Moment()
    observe(toys.net, toys, toys.batches("train", batch_size=batch_size), {"0": lambda _: [moment]})
    return moment.total


@pytest.mark.parametrize("batch_size", [1, 3, 4, 9, 100])
def test_every_batch_size_gives_the_same(batch_size):
    """10 examples: in batches of 3, 4 and 9 the last batch is a smaller one."""
    torch.testing.assert_close(second_moment(batch_size), second_moment(10), rtol=1e-12, atol=1e-14)
    toys = toy(seeded(layers, 4, 6, 3), 10, 4, sites=["0"])
    values = []
    for size in (batch_size, 10):
        agop = Agop(toys.net[0].weight.detach())
        observe(toys.net, toys, toys.batches("train", batch_size=size), {"0": lambda _, agop=agop: [agop]})
        values.append(agop.value().dense())
    torch.testing.assert_close(*values, rtol=1e-12, atol=1e-14)


def test_a_batch_mean_loss_is_refused():
    toys = toy(seeded(layers, 4, 6, 3), 10, 4, sites=["0"])
    toys.loss = lambda outputs, targets: half_square(outputs, targets).mean()

    class Recorder:
        source, needs = Source.LOSS, frozenset()

        def update(self, record) -> None:
            raise AssertionError(record)

    with pytest.raises(Refusal, match="one loss for each example"):
        observe(toys.net, toys, toys.batches("train", batch_size=3), {"0": lambda _: [Recorder()]})
    with pytest.raises(Refusal, match="one loss for each example"):
        evaluate(toys.net, toys, toys.batches("train", batch_size=3))
