"""Learning rates of the updates: transformers' own schedules, and an optimizer that follows them."""

import pytest
import torch
import torch.nn as nn
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from nfa.registry.training.optimizers import Optimizers
from nfa.registry.training.rates import SCHEDULES, Rate, linear, scheduled, stepwise

LR, TOTAL, WARMUP = 3e-4, 7, 3


def of_transformers(schedule, warmup: int) -> list[float]:
    """Learning rate of each of the updates; that of the first one of a warm-up is 0, which we leave out."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler, found = schedule(optimizer, warmup, TOTAL + (warmup > 0)), []
    for _ in range(TOTAL + (warmup > 0)):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found[warmup > 0 :]


@pytest.mark.parametrize("warmup", [0, WARMUP])
@pytest.mark.parametrize(
    ("name", "theirs"), [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)]
)
def test_updates_have_the_rates_of_transformers(name, theirs, warmup):
    rate = scheduled(name, updates=TOTAL, warmup=max(0, warmup - 1))
    assert [LR * rate(n) for n in range(TOTAL)] == pytest.approx(of_transformers(theirs, warmup), rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_starts_at_1_never_rises_and_has_no_negative_factor(name):
    rate = scheduled(name, updates=TOTAL, every=2, factor=0.5)
    factors = [rate(n) for n in range(TOTAL + 3)]
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)
    assert min(factors) >= 0
    assert (factors[TOTAL] < 1e-12) is (name in ("linear", "cosine"))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warm_up_rises_by_equal_steps_to_1_and_never_begins_with_0(name):
    rate = scheduled(name, updates=TOTAL, warmup=WARMUP, every=TOTAL, factor=0.5)
    assert [rate(n) for n in range(WARMUP + 1)] == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1])


def test_steps_are_counted_from_the_first_update_on_whatever_the_warm_up():
    rate = scheduled("step", updates=TOTAL, warmup=1, every=2, factor=0.5)
    assert [rate(n) for n in range(6)] == [0.5, 1, 0.5, 0.5, 0.25, 0.25]


def made(rate: Rate) -> Optimizers:
    return Optimizers({"sgd": torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)}, rate)


def test_optimizers_use_the_rate_of_their_update():
    optimizers, used = made(linear(TOTAL)), []
    weight = optimizers.parts["sgd"].param_groups[0]["params"][0]
    for _ in range(TOTAL):
        weight.grad = torch.ones(1)
        before = float(weight.detach())
        optimizers.step()
        used.append(before - float(weight.detach()))
    assert used == pytest.approx([LR * linear(TOTAL)(n) for n in range(TOTAL)], rel=1e-3)


def test_a_state_is_stored_as_torchs_optimizers_store_theirs():
    plain = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)
    assert made(linear(TOTAL)).state_dict() == {"sgd": plain.state_dict()}


@pytest.mark.parametrize("updates", range(3))
def test_rates_go_on_where_a_state_was_stored_and_torch_warns_of_nothing(updates, recwarn):
    first, second = made(stepwise(1, 0.7)), made(stepwise(1, 0.7))
    for _ in range(updates):
        first.step()
    second.load_state_dict(first.state_dict(), updates)
    assert second.parts["sgd"].param_groups[0]["lr"] == pytest.approx(LR * 0.7**updates)
    second.step()
    assert second.parts["sgd"].param_groups[0]["lr"] == LR * stepwise(1, 0.7)(updates + 1)
    assert recwarn.list == []
