"""How far a step moves each group, clipping, decay, orders of one's own, and steps that a signal breaks off."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn as nn
from torch import Tensor

from nfa.learned import learned_state
from nfa.registry.signals import Interrupted
from nfa.registry.training.loop import Training, Watched
from nfa.registry.training.optimizers import Optimizers
from nfa.registry.training.rates import stepwise
from nfa.workload import Batch
from tests.support.toy_models import Noisy, Toy, seeded, toy
from tests.support.training_loops import BATCHES, EPOCHS, Stopped, Stopping, assert_bitwise_equal, final, through_a_file

GROUPS = {"front": ["first.weight", "first.bias"], "norm": ["norm.weight"], "output": ["readout.weight"]}


class Recorded(Optimizers):
    """Remembers weights before and after every step, and the gradients as the step finds them."""

    def __init__(self, model: nn.Module, decay: tuple[int, float] = (1, 1.0)) -> None:
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        super().__init__({"adam": torch.optim.Adam(trained, lr=0.01)}, stepwise(decay[0] * BATCHES, decay[1]))
        self.model, self.steps, self.rates = model, [], []

    def step(self) -> None:
        named = dict(self.model.named_parameters())
        before = {name: weight.detach().clone() for name, weight in named.items()}
        gradients = {name: weight.grad.clone() for name, weight in named.items() if weight.grad is not None}
        self.rates.append(self.parts["adam"].param_groups[0]["lr"])
        super().step()
        after = {name: weight.detach().clone() for name, weight in named.items()}
        self.steps.append((before, gradients, after))


class Breaking(Toy):
    """A signal arrives in the `at`-th forward pass, after the model, or in its backward pass."""

    at, where, passed = None, "forward", 0

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        outputs = super().outputs(model, batch)
        self.passed += 1
        if self.passed == self.at:
            if self.where == "forward":
                raise Interrupted(signal.SIGTERM)
            model.first.weight.register_hook(self.arrive)
        return outputs

    def arrive(self, _: Tensor) -> None:
        if self.passed == self.at:
            raise Interrupted(signal.SIGTERM)


def training(
    *,
    stop_at: int | None = None,
    break_at: tuple[int, str] | None = None,
    decay: tuple[int, float] = (1, 1.0),
    workload: Callable[..., Toy] = Toy,
    **options: Any,
) -> Training:
    """Of 48 examples in batches of 10, with dropout and batch statistics."""
    made = toy(seeded(Noisy, 5, 8, 3), 48, 5, sites=["first"])
    toys = (Breaking if break_at else workload)(made.net, made.inputs, made.targets, ["first"])
    if break_at:
        toys.at, toys.where = break_at
    model = toys.model()
    return Training(Stopping(toys, stop_at), model, Recorded(model, decay), batch_size=10, seed=3, **options)


def taken_up(stop_at: int, epochs: int, **options: Any) -> tuple[Training, Training, Training]:
    """A training from start to end; another, stopped; and what went on from there to bitwise the same weights."""
    expected = training(**options)
    expected.run(epochs, lambda _: None)
    stopped = training(stop_at=stop_at, **options)
    with pytest.raises(Stopped):
        stopped.run(epochs, lambda _: None)
    state = through_a_file(stopped.state())
    torch.rand(7)
    resumed = training(**options)
    resumed.restore(state)
    resumed.run(epochs, lambda _: None)
    assert_bitwise_equal(resumed.model.state_dict(), expected.model.state_dict())
    return expected, stopped, resumed


def size(tensors: list[Tensor]) -> float:
    return float(torch.cat([tensor.flatten() for tensor in tensors]).norm())


@pytest.mark.parametrize("clip_norm", [0.0, 0.05])
def test_flow_is_of_the_last_step_before_a_watched_epoch_s_end(clip_norm):
    """The gradient's norm is that before clipping."""
    watched, flows = training(watched=Watched(GROUPS, [1, 3]), clip_norm=clip_norm), {}
    watched.run(EPOCHS, lambda epoch: flows.update({epoch: dict(watched.flow)}))
    assert flows[0] == {}
    assert flows[1] == flows[2] != flows[3], "epoch 2 is not watched"
    assert len(watched.optimizer.steps) == EPOCHS * BATCHES
    for epoch in (1, 3):
        before, gradients, after = watched.optimizer.steps[epoch * BATCHES - 1]
        assert set(flows[epoch]) == {"flow/grad_norm", *(f"flow/{group}/update_ratio" for group in GROUPS)}
        for group, names in GROUPS.items():
            moved = size([after[name] - before[name] for name in names])
            expected = moved / size([before[name] for name in names])
            assert flows[epoch][f"flow/{group}/update_ratio"] == pytest.approx(expected, rel=1e-12)
        norm = size(list(gradients.values()))
        if clip_norm:
            assert norm == pytest.approx(clip_norm, rel=1e-4)
            assert flows[epoch]["flow/grad_norm"] > 2 * clip_norm
        else:
            assert flows[epoch]["flow/grad_norm"] == pytest.approx(norm, rel=1e-12)


def test_watching_changes_no_bit():
    assert_bitwise_equal(final(training(watched=Watched(GROUPS, range(10)))), final(training()))


@pytest.mark.parametrize("stop_at", [BATCHES - 1, BATCHES, BATCHES + 1, 2 * BATCHES + 3])
def test_flow_survives_a_stop(stop_at):
    """Wherever it comes: before the watched step, right after it, or later."""
    expected, _, resumed = taken_up(stop_at, EPOCHS, watched=Watched(GROUPS, [1, 2]))
    assert resumed.flow == expected.flow
    assert len(resumed.flow) == 4


def test_clipping_is_that_of_torch():
    (clipped := training(clip_norm=0.05)).run(1, lambda _: None)
    (plain := training()).run(1, lambda _: None)
    _, found, _ = clipped.optimizer.steps[0]
    _, whole, _ = plain.optimizer.steps[0]
    weights = [nn.Parameter(torch.zeros_like(gradient)) for gradient in whole.values()]
    for weight, gradient in zip(weights, whole.values(), strict=True):
        weight.grad = gradient.clone()
    nn.utils.clip_grad_norm_(weights, 0.05)
    for name, weight in zip(whole, weights, strict=True):
        assert torch.equal(found[name], weight.grad), name


def test_a_gradient_shorter_than_the_limit_is_left_as_it_is():
    final(limited := training(clip_norm=1e6))
    assert_bitwise_equal(limited.model.state_dict(), final(training()))


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("at", [1, 3, BATCHES, BATCHES + 2])
def test_a_signal_in_the_middle_of_a_step_leaves_everything_as_it_was_before(where, at):
    expected = training()
    states = [through_a_file(expected.state())]
    expected.run(EPOCHS, lambda _: None, lambda: states.append(through_a_file(expected.state())))
    broken = training(break_at=(at, where))
    with pytest.raises(Interrupted):
        final(broken)
    state = through_a_file(broken.state())
    assert_bitwise_equal(state["model"], states[at - 1]["model"])
    assert torch.equal(state["generators"]["cpu"], states[at - 1]["generators"]["cpu"])
    done, passed = state["progress"], divmod(at - 1, BATCHES)
    assert (done["epoch"], done["batch"]) == passed
    torch.rand(7)
    resumed = training()
    resumed.restore(state)
    assert_bitwise_equal(final(resumed), expected.model.state_dict())


def test_a_signal_right_after_a_step_keeps_the_step():
    expected, states = training(), []
    expected.run(1, lambda _: None, lambda: states.append(through_a_file(expected.state())))
    broken = training()
    with pytest.raises(Interrupted):
        broken.run(1, lambda _: None, lambda: (_ for _ in ()).throw(Interrupted(signal.SIGINT)))
    assert broken.progress.batch == 1
    assert_bitwise_equal(learned_state(broken.model), states[0]["model"])
    assert torch.equal(broken.state()["generators"]["cpu"], states[0]["generators"]["cpu"])


def test_learning_rates_decay_after_every_so_many_epochs():
    decaying = training(decay=(2, 0.5))
    decaying.run(5, lambda _: None)
    assert decaying.optimizer.rates == [0.01] * (2 * BATCHES) + [0.005] * (2 * BATCHES) + [0.0025] * BATCHES


@pytest.mark.parametrize("stop_at", [1, BATCHES, BATCHES + 1, 2 * (BATCHES + 1), 2 * (BATCHES + 1) + 3])
def test_learning_rates_go_on_decaying_where_they_stopped(stop_at):
    expected, stopped, resumed = taken_up(stop_at, 4, decay=(2, 0.5))
    assert stopped.optimizer.rates + resumed.optimizer.rates == expected.optimizer.rates


def drawn(epoch: int) -> Tensor:
    """Some examples twice and others never, another number of them than there are."""
    return torch.randint(48, (23,), generator=torch.Generator().manual_seed(epoch))


@pytest.mark.parametrize("stop_at", [0, 2, 3, 5, 9])
def test_an_order_of_one_s_own_is_followed_and_taken_up_again(stop_at):
    expected, stopped, resumed = taken_up(stop_at, EPOCHS, order=drawn)
    assert expected.batches_per_epoch == 3
    given = [[example for batch in expected.workload.given[3 * e : 3 * e + 3] for example in batch] for e in range(3)]
    assert given == [drawn(epoch).tolist() for epoch in range(EPOCHS)]
    assert stopped.workload.given + resumed.workload.given == expected.workload.given
