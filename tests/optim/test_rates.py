"""Learning rates of the updates: transformers' own schedules, and an optimizer that follows them."""

import pytest
import torch
import torch.nn as nn
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from nfa.registry.training.optimizers import Optimizers
from nfa.registry.training.rates import RATES, constant, cosine, linear, stepwise

LR, TOTAL = 3e-4, 7


def of_transformers(schedule) -> list[float]:
    """Learning rate of each of the updates."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler, found = schedule(optimizer, 0, TOTAL), []
    for _ in range(TOTAL):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("rate", "theirs"), [(linear, get_linear_schedule_with_warmup), (cosine, get_cosine_schedule_with_warmup)]
)
def test_updates_have_the_rates_of_transformers(rate, theirs):
    assert [LR * rate(TOTAL)(step) for step in range(TOTAL)] == pytest.approx(of_transformers(theirs), rel=1e-12)


def test_update_k_of_the_linear_schedule_has_lr_times_1_minus_k_minus_1_over_total():
    for k in range(1, TOTAL + 1):
        assert linear(TOTAL)(k - 1) == pytest.approx(1 - (k - 1) / TOTAL)


@pytest.mark.parametrize("name", RATES)
def test_every_schedule_starts_at_1_never_rises_and_has_no_negative_factor(name):
    factors = [RATES[name](TOTAL)(n) for n in range(TOTAL + 3)]
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)
    assert min(factors) >= 0
    assert (factors[TOTAL] < 1e-12) is (name != "constant")


def test_optimizers_use_the_rate_of_their_update():
    weight = nn.Parameter(torch.zeros(1))
    optimizers, used = Optimizers({"sgd": torch.optim.SGD([weight], lr=LR)}, linear(TOTAL)), []
    for _ in range(TOTAL):
        weight.grad = torch.ones(1)
        before = float(weight.detach())
        optimizers.step()
        used.append(before - float(weight.detach()))
        optimizers.end_epoch()
    assert used == pytest.approx([LR * linear(TOTAL)(n) for n in range(TOTAL)], rel=1e-3)


def test_steps_fall_by_a_factor_every_so_many():
    assert [stepwise(2, 0.5)(n) for n in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert constant(5)(100) == 1


def test_a_state_is_stored_as_torchs_optimizers_store_theirs():
    plain = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)
    found = Optimizers({"sgd": torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)}, linear(TOTAL)).state_dict()
    assert found == {"epochs": 0, "sgd": plain.state_dict()}


@pytest.mark.parametrize("epochs", range(3))
def test_rates_go_on_where_a_state_was_stored_and_torch_warns_of_nothing(epochs, recwarn):
    def made() -> Optimizers:
        return Optimizers({"sgd": torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)}, stepwise(1, 0.7))

    first, second = made(), made()
    for _ in range(epochs):
        first.step()
        first.end_epoch()
    second.load_state_dict(first.state_dict())
    second.end_epoch()  # no update comes before it where the state is of an epoch's last batch
    assert second.state_dict()["epochs"] == epochs + 1
    assert second.parts["sgd"].param_groups[0]["lr"] == LR * stepwise(1, 0.7)(epochs + 1)
    assert recwarn.list == []
