"""The optimizers by name: what they compute, what they share between them, and that their state comes back."""

import dataclasses
import io
import math
from typing import Any

import pytest
import torch
import torch.nn as nn
from torch import Tensor

from nfa.errors import Refusal
from nfa.reference import orthogonalised as by_decomposition
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.training.muon import COEFFICIENTS
from nfa.registry.training.optimizer_parameters import OptimizerParameters
from nfa.registry.training.optimizers import Group, Optimizers, build

SETTINGS = {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.0, "companion_lr": 0.001}
SHAPES = [(6, 9), (8, 6), (3, 8)]  # the last one is the readout


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(draw(*shape, seed=index)) for index, shape in enumerate(SHAPES)]


def asked(name: str, **settings: Any) -> OptimizerParameters:
    return OptimizerParameters(optimizer=name, **{**SETTINGS, **settings})


def made(name: str, weights: list[nn.Parameter], **settings: Any) -> Optimizers:
    return build(asked(name, **settings), [Group(weights[:-1], weights[-1:])])


def steps(optimizer: Optimizers | torch.optim.Optimizer, weights: list[nn.Parameter], count: int, first: int = 0):
    """`count` steps with gradients that depend on nothing but the step's and the weight's number."""
    for step in range(first, first + count):
        for index, weight in enumerate(weights):
            weight.grad = draw(*weight.shape, seed=1000 + 10 * step + index)
        optimizer.step()


def assert_equal(found: list[nn.Parameter], expected: list[nn.Parameter]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


PLAIN = {
    "sgd": lambda weights, momentum, decay: torch.optim.SGD(weights, 0.01, momentum, weight_decay=decay),
    "adam": lambda weights, _, decay: torch.optim.Adam(weights, 0.01, weight_decay=decay),
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_and_adam_are_those_of_torch(name, weight_decay, momentum):
    found, expected = parameters(), parameters()
    steps(made(name, found, weight_decay=weight_decay, momentum=momentum), found, 3)
    steps(PLAIN[name](expected, momentum, weight_decay), expected, 3)
    assert_equal(found, expected)


@pytest.mark.parametrize("name", PLAIN)
def test_weight_decay_of_sgd_and_adam_is_an_l2_penalty(name):
    """The same as adding λW to the gradient by hand; the decoupled decay of AdamW would not be."""
    found, expected, decay = parameters(), parameters(), 0.3
    optimizer = made(name, expected)
    for step in range(3):
        for index, weight in enumerate(expected):
            weight.grad = draw(*weight.shape, seed=1000 + 10 * step + index) + decay * weight.detach()
        optimizer.step()
    steps(made(name, found, weight_decay=decay), found, 3)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(12, 24), (24, 12), (16, 16)])
def test_the_first_update_of_muon_is_the_orthogonalised_gradient(shape):
    """ΔW/(lr √max(1, out/in)) has the gradient's singular vectors and singular values within 0.3…1.5."""
    U, _, Vh = torch.linalg.svd(draw(*shape, seed=1), full_matrices=False)
    gradient = U @ torch.diag(torch.linspace(0.2, 1, min(shape))) @ Vh
    weight, readout, lr = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(2, 2)), 0.02
    optimizer = made("muon", [weight, readout], lr=lr, momentum=0.95)
    weight.grad, readout.grad = gradient.clone(), torch.zeros(2, 2)
    optimizer.step()
    direction = -weight.detach() / (lr * math.sqrt(max(1, shape[0] / shape[1])))
    singular = torch.linalg.svdvals(direction)
    assert float(singular.min()) > 0.3
    assert float(singular.max()) < 1.5
    aligned = U.T @ direction @ Vh.T
    assert float((aligned - torch.diag(aligned.diagonal())).abs().max()) < 0.03
    assert float(aligned.diagonal().min()) > 0.3
    orthogonal = U @ Vh
    assert float((direction * orthogonal).sum() / direction.norm() / orthogonal.norm()) > 0.97
    assert float((gradient * orthogonal).sum() / gradient.norm() / orthogonal.norm()) < 0.97


def test_the_size_of_the_gradient_does_not_change_muons_update():
    updates = []
    for scale in (1.0, 64.0):
        weight, readout = nn.Parameter(torch.zeros(8, 6)), nn.Parameter(torch.zeros(2, 2))
        optimizer = made("muon", [weight, readout])
        weight.grad = scale * draw(8, 6, seed=1)
        optimizer.step()
        updates.append(weight.detach())
    torch.testing.assert_close(*updates, rtol=0.03, atol=3e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_muon_is_torchs(precision):
    """Bitwise where torch's own precision is asked for; else the same to a few 2⁻⁸ after the five rounds."""
    found, expected = parameters(), parameters()
    steps(made("muon", found, lr=1.0, momentum=0.9, optimizer_args=f"precision={precision}"), found, 2)
    plain = torch.optim.Muon(expected[:-1], lr=1.0, momentum=0.9, weight_decay=0.0)
    steps(plain, expected[:-1], 2)
    apart = 0.0 if precision == "bfloat16" else 0.02
    for one, other, start in list(zip(found, expected, parameters(), strict=True))[:-1]:
        torch.testing.assert_close(one - start, other - start, rtol=apart, atol=apart)
        assert (other - start).norm() > 1


@pytest.mark.parametrize("coefficients", COEFFICIENTS)
def test_the_coefficients_that_are_asked_for_are_used(coefficients):
    weight, readout, gradient = nn.Parameter(torch.zeros(6, 9)), nn.Parameter(torch.zeros(2, 2)), draw(6, 9, seed=3)
    given = f"coefficients={coefficients},precision=float32,nesterov=false"
    optimizer = made("muon", [weight, readout], lr=1.0, optimizer_args=given)
    weight.grad = gradient.clone()
    optimizer.step()
    expected = by_decomposition(gradient, list(COEFFICIENTS[coefficients]))
    torch.testing.assert_close(-weight.detach().double(), expected, rtol=1e-4, atol=1e-5)


def test_the_readout_of_muon_is_adams_at_its_own_learning_rate():
    found, expected = parameters(), parameters()
    steps(made("muon", found, momentum=0.95, companion_lr=0.005), found, 3)
    adam = torch.optim.Adam(expected, lr=0.005)
    steps(adam, expected, 3)
    assert torch.equal(found[-1], expected[-1])
    assert not torch.equal(found[0], expected[0])


def test_no_matrix_is_stepped_twice_or_left_out():
    for name in ("sgd", "adam", "muon"):
        weights = parameters()
        groups = [group for part in made(name, weights).parts.values() for group in part.param_groups]
        held = [id(weight) for group in groups for weight in group["params"]]
        assert sorted(held) == sorted(id(weight) for weight in weights)


def test_without_weight_decay_muon_leaves_weights_without_gradient_bitwise_alone():
    """torch's own default decay of 0.1 must not slip in, nor any rescaling of W."""
    found, expected = parameters(), parameters()
    optimizer = made("muon", found, momentum=0.95)
    for weight in found:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert_equal(found, expected)


def test_weight_decay_of_muon_is_decoupled():
    """W ← (1 − lr λ) W before the same update, so that the update itself does not depend on λ."""
    lr, decay = 0.1, 0.5
    found, without = parameters(), parameters()
    steps(made("muon", found, lr=lr, weight_decay=decay), found, 1)
    steps(made("muon", without, lr=lr), without, 1)
    for one, other, start in list(zip(found, without, parameters(), strict=True))[:-1]:
        torch.testing.assert_close(one - (1 - lr * decay) * start, other - start, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "muon"])
def test_state_comes_back_through_a_file(name):
    """Bitwise the same weights after two more steps, read with weights_only."""
    weights = parameters()
    optimizer = made(name, weights, momentum=0.9, weight_decay=0.1)
    steps(optimizer, weights, 2)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "weights": [weight.detach() for weight in weights]}, file)
    steps(optimizer, weights, 2, first=2)

    file.seek(0)
    stored = torch.load(file, weights_only=True)
    again = [nn.Parameter(weight) for weight in stored["weights"]]
    resumed = made(name, again, momentum=0.9, weight_decay=0.1)
    resumed.load_state_dict(stored["optimizer"], 2)
    steps(resumed, again, 2, first=2)
    assert_equal(again, weights)


def test_gradients_are_dropped_not_zeroed():
    weights = parameters()
    optimizer = made("muon", weights)
    steps(optimizer, weights, 1)
    optimizer.zero_grad()
    assert all(weight.grad is None for weight in weights)


def test_an_unknown_name_is_refused():
    with pytest.raises(Refusal, match="lion"):
        made("lion", parameters())


OTHERS = {"RMSprop": {"alpha": 0.9}, "NAdam": {}, "Adagrad": {}, "Adafactor": {}, "Rprop": {}}


@pytest.mark.parametrize("name", OTHERS)
def test_any_class_of_torch_is_made_with_its_arguments(name):
    found, expected, own = parameters(), parameters(), OTHERS[name]
    given = ",".join(f"{key}={value}" for key, value in own.items())
    config = asked(name, lr="auto", momentum="auto", optimizer_args=given)
    optimizer = build(dataclasses.replace(config, **config.values_of_auto()), [Group(found[:-1], found[-1:])])
    steps(optimizer, found, 3)
    steps(getattr(torch.optim, name)(expected, weight_decay=0.0, **own) if name != "Rprop" else
          torch.optim.Rprop(expected), expected, 3)  # fmt: skip
    assert_equal(found, expected)
    assert list(optimizer.parts) == [name]


def test_arguments_that_are_typed_come_before_those_of_the_family():
    weights, family = parameters(), {"adam": {"betas": (0.9, 0.98), "eps": 1e-9}}
    made_of_family = build(asked("adam", optimizer_args="betas=0.5,0.6"), [Group(weights)], own=family)
    group = made_of_family.parts["adam"].param_groups[0]
    assert (group["betas"], group["eps"]) == ((0.5, 0.6), 1e-9)
    assert build(asked("sgd"), [Group(weights)], own=family).parts["sgd"].param_groups[0]["nesterov"] is False


def test_a_groups_factor_holds_for_the_companion_too():
    weights = parameters()
    groups = [Group(weights[:1]), Group(weights[1:2], weights[2:], factor=3.0)]
    parts = build(asked("muon", lr=0.01, companion_lr=0.001), groups).parts
    assert [group["lr"] for group in parts["muon"].param_groups] == [0.01, 0.03]
    assert [group["lr"] for group in parts["companion"].param_groups] == [0.003]


def test_an_argument_that_needs_momentum_is_taken_with_it_and_refused_without():
    asked("sgd", momentum=0.9, optimizer_args="nesterov=true").check_optimizer()
    with pytest.raises(Refusal, match="Nesterov momentum requires a momentum"):
        asked("sgd", momentum="auto", optimizer_args="nesterov=true").check_optimizer()


@pytest.mark.parametrize(("given", "said"), [
    ("betas=0.9", "a step with it fails"),
    ("beta=0.9", "parameter 'beta'(.|\n)*did you mean betas"),
    ("lr=0.1", "lr as a separate parameter"),
    ("eps", "NAME=VALUE"),
])  # fmt: skip
def test_arguments_that_an_optimizer_does_not_take_are_refused(given, said):
    with pytest.raises(Refusal, match=said):
        asked("adam", optimizer_args=given).check_optimizer()


@pytest.mark.parametrize("given", ["ns_steps=9", "ns_coefficients=1,2,3", "eps=1e-3", "adjust_lr_fn=original"])
def test_arguments_of_pytorch_s_muon_that_ours_would_ignore_are_refused(given):
    with pytest.raises(Refusal, match=r"optimizer_args of muon(.|\n)*nesterov, coefficients, precision"):
        asked("muon", optimizer_args=given).check_optimizer()


@pytest.mark.parametrize("name", ["LBFGS", "SparseAdam"])
def test_a_class_that_cannot_make_the_steps_is_refused(name):
    with pytest.raises(Refusal, match="a step with it fails"):
        asked(name).check_optimizer()


def test_a_rate_of_a_companion_that_an_optimizer_does_not_have_is_refused():
    asked("muon", companion_lr=0.01).check_optimizer()
    with pytest.raises(Refusal, match=r"companion_lr=0\.01 with optimizer=adam"):
        asked("adam", companion_lr=0.01).check_optimizer()


@pytest.mark.parametrize("given", [{"companion_lr": 0.01}, {"lr_step": 3}, {"optimizer_args": "beta=1"}])
def test_a_resume_may_repeat_a_part_of_what_the_run_has(given):
    assert TrainConfig(resume="abc", **given).resume == "abc"
    with pytest.raises(Refusal):
        TrainConfig(**given)


@pytest.mark.parametrize("given", [{"lr_step": 3}, {"lr_decay": 0.5}])
def test_what_only_another_schedule_uses_is_refused(given):
    with pytest.raises(Refusal, match="lr_schedule=constant"):
        asked("sgd", **given).check_optimizer()
    asked("sgd", lr_schedule="step", **given).check_optimizer()


def test_a_warm_up_longer_than_the_training_is_refused():
    asked("sgd", warmup=9).check_updates(10)
    with pytest.raises(Refusal, match="warmup=10 in a training of 10 updates"):
        asked("sgd", warmup=10).check_updates(10)
