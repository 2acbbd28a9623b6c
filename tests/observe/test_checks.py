"""What has no per-example matrices is refused before the work starts, with a way out; what has them passes."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nfa.errors import Refusal
from nfa.observe.checks import check_model
from nfa.observe.door import EXAMPLES
from tests.support.snapshots import assert_same, snapshot
from tests.support.toy_models import Noisy, Sequences, Tied, Toy, half_square, layers, seeded, toy

BATCH = 12


class Around(nn.Module):
    """A linear map, something in the middle, a readout."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.readout = nn.Linear(5, 6), nn.Linear(6, 3)
        self.middle = middle

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.readout(self.middle(self.first(inputs)))
        return outputs


class Stubborn(nn.Dropout):
    """Stays in training mode."""

    def train(self, mode: bool = True) -> "Stubborn":  # noqa: ARG002
        return super().train(True)


class StubbornNorm(nn.BatchNorm1d):
    """The same."""

    def train(self, mode: bool = True) -> "StubbornNorm":  # noqa: ARG002
        return super().train(True)


class TimeFirst(nn.Module):
    """An LSTM of [s n i] that is given [n s i]: an example then sees those before it."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.recurrent, self.readout = nn.LSTM(features, hidden), nn.Linear(hidden, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.readout(self.recurrent(inputs)[0][:, -1])
        return outputs


def broken(layer: nn.Linear) -> nn.Linear:
    nn.init.constant_(layer.weight, torch.nan)
    return layer


def workload(middle: Callable[[Tensor], Tensor], loss: Callable = half_square) -> Toy:
    toys = toy(seeded(Around, middle), BATCH, 5, sites=["first"])
    toys.loss = loss
    toys.net.train()
    return toys


def check(toys: Toy, n: int = BATCH) -> None:
    check_model(toys.net, toys, next(toys.batches("train", batch_size=n)))


REFUSED = {
    "BatchNorm without running statistics": (
        lambda: workload(nn.BatchNorm1d(6, track_running_stats=False)),
        r"'middle', a BatchNorm1d that uses the statistics of the batch.*do: use track_running_stats=True.*LayerNorm",
    ),
    "BatchNorm that stays in training mode": (
        lambda: workload(StubbornNorm(6)),
        r"'middle', a StubbornNorm that uses the statistics of the batch.*evaluation mode, or GroupNorm",
    ),
    "a module that stays in training mode": (
        lambda: workload(Stubborn()),
        r"'middle', a Stubborn that stays in training mode after model\.eval\(\).*do: do not override train\(\)",
    ),
    "dropout by F.dropout": (
        lambda: workload(lambda x: F.dropout(x, 0.2)),
        r"outputs differ when it is run twice.*deterministic in evaluation mode.*do: use nn\.Dropout",
    ),
    "noise in forward": (
        lambda: workload(lambda x: x + 0.1 * torch.rand_like(x)),
        r"outputs differ when it is run twice.*torch\.rand in forward",
    ),
    "a batch mean subtracted": (
        lambda: workload(lambda x: x - x.mean(dim=0)),
        r"outputs for an example depend on the others.*do: 1\. normalise by GroupNorm.*2\..*3\. pad to a fixed length",
    ),
    "examples that see their neighbours": (
        lambda: workload(lambda x: x + 0.01 * x.roll(1, dims=0)),
        r"outputs for an example depend on the others in the batch",
    ),
    "attention among the examples": (
        lambda: workload(lambda x: torch.softmax(x @ x.T, dim=1) @ x),
        r"outputs for an example depend on the others in the batch",
    ),
    "sums over the examples before": (
        lambda: workload(lambda x: x.cumsum(0)),
        r"outputs for an example depend on the others in the batch",
    ),
    "sums over the examples after": (
        lambda: workload(lambda x: x.flip(0).cumsum(0).flip(0)),
        r"outputs for an example depend on the others in the batch",
    ),
    "examples taken for time": (
        lambda: toy(seeded(TimeFirst, 5, 6, 3), BATCH, 4, 5, sites=["readout"]),
        r"outputs for an example depend on the others.*keep the examples in the first dimension",
    ),
    "weights that are not finite": (
        lambda: workload(broken(nn.Linear(6, 6))),
        r"outputs or losses are not finite.*do: take a checkpoint from before the training diverged",
    ),
    "targets that are not finite": (
        lambda: workload(nn.Tanh(), lambda f, y: half_square(f, y / 0)),
        r"outputs or losses are not finite.*finite weights, inputs and targets",
    ),
    "losses divided by the batch's sum": (
        lambda: workload(nn.Tanh(), lambda f, y: half_square(f, y) / half_square(f, y).sum()),
        r"a loss in which examples are coupled.*one number for each example alone.*do: do not divide",
    ),
    "losses divided by the number of examples": (
        lambda: workload(nn.Tanh(), lambda f, y: half_square(f, y) / len(f)),
        r"a loss in which examples are coupled.*do: do not divide by a quantity of the batch",
    ),
    "a contrastive loss": (
        lambda: workload(nn.Tanh(), lambda f, y: F.cross_entropy(f @ y.T, torch.arange(len(f)), reduction="none")),
        r"a loss in which examples are coupled.*contrastive and ranking losses have no per-example gradient",
    ),
    "a mean over the batch": (
        lambda: workload(nn.Tanh(), lambda f, y: half_square(f, y).mean()),
        r"losses of shape \(\) for 8 examples.*one loss for each example.*reduction='none'",
    ),
    "a loss of each output": (
        lambda: workload(nn.Tanh(), lambda f, y: (f - y).square()),
        r"losses of shape \(8, 3\) for 8 examples.*one loss for each example",
    ),
}
PASSES = {
    "BatchNorm": lambda: workload(nn.BatchNorm1d(6)),
    "LayerNorm": lambda: workload(nn.LayerNorm(6)),
    "GroupNorm": lambda: workload(nn.GroupNorm(2, 6)),
    "Dropout": lambda: workload(nn.Dropout(0.5)),
    "everything a careless observer would disturb": lambda: toy(seeded(Noisy, 5, 8, 3), BATCH, 5, sites=["first"]),
    "positions that see one another": lambda: toy(seeded(Sequences, 3, 5, 2), BATCH, 4, 3, sites=["first"]),
    "a module called twice": lambda: toy(seeded(Tied, 3, 5, 2), BATCH, 4, 3, sites=["shared"]),
    "rounding that depends on the batch": lambda: workload(lambda x: x * (1 + 1e-6 * len(x))),
    "float32": lambda: toy(seeded(layers, 300, 400, 20), BATCH, 300, sites=["0"], dtype=torch.float32),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_matrices_of_each_example_is_refused_with_a_way_out(case):
    build, message = REFUSED[case]
    with pytest.raises(Refusal, match=f"(?s){message}"):
        check(build())


@pytest.mark.parametrize("case", PASSES)
def test_models_and_losses_of_each_example_alone_pass(case):
    check(PASSES[case]())


@pytest.mark.parametrize("case", PASSES)
def test_a_single_example_passes(case):
    check(PASSES[case](), 1)


@pytest.mark.parametrize("n", [4, 5, 8, 9])
@pytest.mark.parametrize("case", [case for case in REFUSED if "sum" in case or "mean" in case or "number" in case])
def test_four_examples_are_enough_to_see_that_they_are_coupled(case, n):
    with pytest.raises(Refusal, match=r"depend|coupled|one loss"):
        check(REFUSED[case][0](), n)


@pytest.mark.parametrize("case", [*REFUSED, *PASSES])
def test_a_check_leaves_no_trace(case):
    """Modes, weights, generators and hooks are bitwise as before, whether it is refused or not."""
    toys = REFUSED[case][0]() if case in REFUSED else PASSES[case]()
    modules = list(toys.net.modules())
    modules[-1].training = not modules[-1].training  # a mixed mode
    before = snapshot(toys)
    with pytest.raises(Refusal) if case in REFUSED else nullcontext():
        check(toys)
    assert_same(snapshot(toys), before)


def test_no_more_than_eight_examples_are_run_and_only_forward():
    toys, seen = PASSES["Dropout"](), []
    toys.net.register_forward_hook(lambda _module, args, output: seen.append((len(args[0]), output.requires_grad)))
    check(toys)
    assert seen == [(EXAMPLES, False), (EXAMPLES, False), (EXAMPLES // 2, False)]


def test_a_model_with_parameters_that_are_zero_is_run_once_more():
    toys, seen = PASSES["LayerNorm"](), []
    toys.net.register_forward_hook(lambda _module, args, _output: seen.append(len(args[0])))
    check(toys)
    assert seen == [EXAMPLES, EXAMPLES, EXAMPLES, EXAMPLES // 2]
