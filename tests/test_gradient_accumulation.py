"""A step that comes in parts is the step as a whole: of a mean over examples, and of one over tokens."""

import copy
import math

import pytest
import torch
import torch.nn as nn

from nfa.registry.families.language.answer_tokens import IGNORED
from nfa.registry.families.language.losses import TokenMean, answer_losses
from nfa.registry.training.loop import Training, Watched
from nfa.registry.training.optimizers import Optimizers
from nfa.registry.training.rates import linear
from nfa.workload import Batch
from tests.support.toy_models import Toy, layers, seeded, toy
from tests.support.training_loops import assert_bitwise_equal, through_a_file

EXAMPLES, STEP = 22, 8  # steps of 8, 8 and 6
VOCABULARY, LENGTH = 5, 6


class Answers(Toy):
    """Logits [n s v] of a model for every position; each example has its own number of labels."""

    def outputs(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return model(batch.inputs).unflatten(1, (LENGTH, VOCABULARY))

    def losses(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        sums, counts = answer_losses(outputs, batch.targets)
        return sums / counts


def answers() -> Answers:
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(EXAMPLES, 4, generator=random, dtype=torch.float64)
    labels = torch.randint(VOCABULARY, (EXAMPLES, LENGTH), generator=random)
    for row in range(EXAMPLES):
        labels[row, 1 + row % LENGTH :] = IGNORED
    return Answers(seeded(layers, 4, 7, LENGTH * VOCABULARY).double(), inputs, labels, ["0"])


WORKLOADS = {
    "examples": (lambda: toy(seeded(layers, 4, 7, 3), EXAMPLES, 4, sites=["0"]), lambda: None),
    "tokens": (answers, TokenMean),
}


def training(kind: str, accumulation: int, *, clip_norm: float = 0.05) -> Training:
    make, objective = WORKLOADS[kind]
    workload = make()
    model = workload.model()
    optimizers = Optimizers({"adamw": torch.optim.AdamW(model.parameters(), lr=0.01)}, linear(2))
    return Training(
        workload,
        model,
        optimizers,
        batch_size=STEP,
        seed=1,
        objective=objective(),
        accumulation=accumulation,
        clip_norm=clip_norm,
        watched=Watched({"all": [name for name, _ in model.named_parameters()]}, [1, 2]),
    )


def losses(found: Training) -> list[float]:
    """Of every step in two epochs."""
    heard: list[float] = []
    found.run(2, lambda _: None, lambda: heard.append(float(found.last["loss"])))
    return heard


@pytest.mark.parametrize("accumulation", [2, 4, 8])
@pytest.mark.parametrize("kind", WORKLOADS)
def test_steps_in_parts_give_the_weights_losses_and_norms_of_whole_steps(kind: str, accumulation: int) -> None:
    """Also the last, smaller step, whose last part is smaller than the others."""
    whole, parts = training(kind, 1), training(kind, accumulation)
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-12)
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], weight, rtol=1e-9, atol=1e-12)
    assert float(parts.last["grad_norm"]) == pytest.approx(float(whole.last["grad_norm"]), rel=1e-10)
    assert parts.flow == pytest.approx(whole.flow, rel=1e-8)


@pytest.mark.parametrize("kind", WORKLOADS)
def test_the_norm_is_that_of_the_whole_step_before_it_is_clipped(kind: str) -> None:
    found = training(kind, 4, clip_norm=1e-3)
    workload, before = found.workload, copy.deepcopy(found.model)
    step = found.order(0)[:STEP]
    (batch,) = workload.batches("train", batch_size=STEP, ids=step)
    objective = found.objective
    objective(workload.outputs(before, batch), batch).backward()
    expected = math.sqrt(sum(float(weight.grad.square().sum()) for weight in before.parameters()))
    norms: list[float] = []
    found.run(1, lambda _: None, lambda: norms.append(float(found.last["grad_norm"])))
    assert norms[0] == pytest.approx(expected, rel=1e-10)


def test_parts_and_their_last_values_go_on_where_they_stopped() -> None:
    expected = training("tokens", 4)
    expected.run(2, lambda _: None)
    stopped, states = training("tokens", 4), []
    stopped.run(1, lambda _: states.append(through_a_file(stopped.state(reported=True))))
    resumed = training("tokens", 4)
    resumed.restore(states[-1])
    assert float(resumed.last["loss"]) == float(stopped.last["loss"])
    resumed.run(2, lambda _: None)
    assert_bitwise_equal(resumed.model.state_dict(), expected.model.state_dict())
