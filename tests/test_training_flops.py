"""Operations of training steps: those that a calculation by hand gives, none that are not known, and no trace left."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nfa.bookkeeping import FLOPS
from nfa.registry.families.mlp.ghm import Harmonised
from nfa.registry.training.flops import MOST_SHAPES, StepFlops, flops_of_passes, flops_of_update
from nfa.registry.training.loop import Training
from nfa.registry.training.muon import Muon
from nfa.registry.training.optimizers import Optimizers
from nfa.workload import Batch, MeanLoss
from tests.support.toy_models import Noisy, Toy, seeded, toy
from tests.support.training_loops import assert_bitwise_equal, through_a_file

N, D, H, K = 12, 6, 5, 3
STEP = N * (6 * D * H + 6 * H * K) - 2 * N * D * H  # the inputs need no gradient


def sgd(model: nn.Module) -> Optimizers:
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return Optimizers({"sgd": torch.optim.SGD(trained, lr=0.1)})


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, K))


def flops_of(model: nn.Module, *shape: int, parts: int = 1) -> float | None:
    inputs = torch.randn(shape)
    workload = Toy(model, inputs, torch.zeros_like(model(inputs)), [])
    batches = list(workload.batches("train", batch_size=len(inputs) // parts))
    return flops_of_passes(workload, model, MeanLoss(workload.losses), nullcontext, batches)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_linear_map_costs_two_operations_a_weight_and_example_forward_and_four_back(parts: int) -> None:
    assert flops_of(mlp(), N, D, parts=parts) == STEP


def test_frozen_weights_with_an_adapter_cost_no_gradient_of_their_own() -> None:
    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.a, self.b = nn.Linear(H, H), nn.Linear(H, 2, bias=False), nn.Linear(2, H, bias=False)
            self.base.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + self.b(self.a(x))

    rank = 2 * N * H * 2
    one, first = 2 * (2 * N * H * H) + 6 * rank, (2 * N * H * H) + rank  # the first one's inputs need no gradient
    assert flops_of(nn.Sequential(Adapted(), Adapted()), N, H) == 2 * one - first


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.ConvTranspose1d])
def test_a_convolution_costs_two_operations_a_weight_and_position_also_with_groups(
    kind: type[nn.Conv1d], groups: int
) -> None:
    first, second = kind(2, 4, 3, stride=2, groups=groups), kind(4, 6, 3, stride=2, groups=groups)
    inputs = torch.randn(N, 2, 15)
    at = [inputs, first(inputs), second(first(inputs))]
    positions = [each.shape[2] for each in (at[1:] if kind is nn.Conv1d else at[:2])]
    once = [2 * N * count * each.weight.numel() for count, each in zip(positions, (first, second), strict=True)]
    assert flops_of(nn.Sequential(first, second), N, 2, 15) == 2 * once[0] + 3 * once[1]


def test_fused_attention_costs_two_products_forward_and_five_back() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(8, 24)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
            return F.scaled_dot_product_attention(q, k, v)

    product, projection = 2 * N * 2 * 5 * 5 * 4, 2 * N * 5 * 8 * 24
    assert flops_of(Attention(), N, 5, 8) == 2 * projection + 7 * product


@pytest.mark.parametrize("made_by", [Muon, torch.optim.Muon])
def test_muon_costs_the_products_of_its_iteration(made_by: type[torch.optim.Muon]) -> None:
    model = mlp()
    parts = {"muon": made_by([model[0].weight]), "adam": torch.optim.Adam([model[2].weight])}
    small, large = min(D, H), max(D, H)
    assert flops_of_update(Optimizers(parts)) == 0  # there are no gradients
    model(torch.zeros(N, D)).sum().backward()
    assert flops_of_update(Optimizers(parts)) == 5 * (2 * 2 * small * small * large + 2 * small**3)
    assert not parts["muon"].state


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(D, H, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


class Looking(nn.Module):
    """Multiplies as often as its numbers say."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if float(x.sum()) > 0 else self.layer(self.layer(x))


@pytest.mark.parametrize(("model", "shape"), [(Recurrent(), (N, 4, D)), (Looking(), (N, D))])
def test_what_cannot_be_counted_is_absent(model: nn.Module, shape: tuple[int, ...]) -> None:
    assert flops_of(model, *shape) is None


def ended(*, count: bool) -> Training:
    """Dropout, batch statistics, counts of the objective, and an optimizer with a memory."""
    toys = toy(seeded(Noisy, 5, 8, 3), 48, 5, sites=["first"])
    terms = lambda outputs, targets: ((outputs - targets).detach().abs().clamp(0, 1), (outputs - targets).square())  # noqa: E731
    model, objective = toys.model(), Harmonised(terms, bins=4, momentum=0.5, alpha=1.0)
    optimizers = Optimizers({"adam": torch.optim.Adam(model.parameters(), lr=0.01)})
    training = Training(toys, model, optimizers, batch_size=10, seed=3, objective=objective, count_flops=count)
    training.run(2, lambda _: None)
    return training


def test_counting_changes_no_weight_no_statistic_no_generator_and_no_memory() -> None:
    plain = ended(count=False).state()
    drawn = torch.rand(3)
    counting = ended(count=True)
    found = counting.state()
    assert counting.flops.total
    assert plain["flops"] is None
    assert torch.equal(drawn, torch.rand(3))
    assert_bitwise_equal(found["model"], plain["model"])
    assert_bitwise_equal(found["objective"], plain["objective"])
    moments = [state["optimizer"]["adam"]["state"][0] for state in (found, plain)]
    assert_bitwise_equal(*moments)
    assert all(type(each) is nn.Parameter for each in counting.model.parameters())
    assert all(type(each) is Tensor for each in counting.model.buffers())


def training() -> Training:
    workload = Toy(mlp(), torch.randn(2 * N + 4, D), torch.zeros(2 * N + 4, K), [])
    model = workload.model()
    return Training(workload, model, sgd(model), batch_size=N, seed=0)


def test_a_training_counts_every_step_with_its_true_number_of_examples_also_when_resumed() -> None:
    first, logged = training(), []
    first.run(2, lambda _: logged.append(first.flops.values()))
    epoch = 2 * STEP + STEP / N * 4
    assert logged == [{}, {FLOPS: epoch}, {FLOPS: 2 * epoch}]
    resumed = training()
    resumed.restore(through_a_file(first.state()))
    resumed.run(3, lambda _: None)
    assert resumed.flops.values() == {FLOPS: 3 * epoch}


def test_a_state_that_does_not_tell_the_operations_so_far_leaves_the_total_unknown() -> None:
    first = training()
    first.run(1, lambda _: None)
    resumed = training()
    resumed.restore({name: value for name, value in first.state().items() if name != "flops"})
    resumed.run(2, lambda _: None)
    assert resumed.flops.values() == {}


def test_each_shape_is_counted_once_and_too_many_shapes_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    monkeypatch.setattr("nfa.registry.training.flops.flops_of_passes", lambda *made_of: counted.append(made_of) or 1.0)
    workload = Toy(mlp(), torch.randn(N, D), torch.zeros(N, K), [])
    flops = StepFlops(workload, workload.net, sgd(workload.net), MeanLoss(workload.losses))

    def add(length: int) -> None:
        flops.add([Batch(torch.zeros(2, length), torch.zeros(2), torch.arange(2))])

    for length in [*range(MOST_SHAPES), *range(MOST_SHAPES)]:
        add(length)
    assert (flops.total, len(counted)) == (2 * MOST_SHAPES, MOST_SHAPES)
    add(MOST_SHAPES)
    assert flops.total is None
