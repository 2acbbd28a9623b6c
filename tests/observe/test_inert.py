"""Observation leaves no trace: bitwise the same before and after, also where it ends in an exception."""

import copy
import random

import numpy as np
import pytest
import torch
from toys import Noisy, Toy, seeded, toy

from nfa.evaluation import evaluate
from nfa.measures.site_matrices import site_matrices, site_weights
from nfa.observe.capture import inert
from nfa.observe.passes import observe
from nfa.observe.records import Source

SITES = ["first", "frozen", "readout"]


class Loud:
    """Draws from every generator, and may fail."""

    source = Source.LOSS

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails

    def update(self, _record: object) -> None:
        random.random(), np.random.rand(), torch.rand(3)
        if self.fails:
            raise KeyboardInterrupt


@pytest.fixture
def trained() -> tuple[Toy, torch.optim.Optimizer]:
    """A model in training mode (its frozen part in evaluation mode) with gradients and optimizer state."""
    toys = toy(seeded(Noisy, 5, 8, 3), 12, 5, sites=SITES)
    optimizer = torch.optim.Adam([weight for weight in toys.net.parameters() if weight.requires_grad])
    toys.loss(toys.net(toys.inputs), toys.targets).mean().backward()
    optimizer.step()
    return toys, optimizer


def snapshot(toys: Toy, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    modules = dict(toys.net.named_modules())
    state = {
        "weights and buffers": toys.net.state_dict(),
        "versions": {name: tensor._version for name, tensor in toys.net.state_dict().items()},
        "gradients": {name: weight.grad for name, weight in toys.net.named_parameters()},
        "requires_grad": {name: weight.requires_grad for name, weight in toys.net.named_parameters()},
        "optimizer": optimizer.state_dict(),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "python": random.getstate(),
        "training": {name: module.training for name, module in modules.items()},
        "hooks": {
            name: [len(getattr(module, kind)) for kind in vars(module) if kind.endswith("_hooks")]
            for name, module in modules.items()
        },
        "grad mode": torch.is_grad_enabled(),
        "inputs": toys.inputs,
        "targets": toys.targets,
    }
    return copy.deepcopy(state)


def assert_same(found: object, expected: object, path: str = "") -> None:
    """Bitwise equal, through nested containers."""
    assert type(found) is type(expected), path
    if isinstance(found, torch.Tensor):
        assert torch.equal(found, expected), path
    elif isinstance(found, np.ndarray):
        assert np.array_equal(found, expected), path
    elif isinstance(found, dict):
        assert found.keys() == expected.keys(), path
        for key in found:
            assert_same(found[key], expected[key], f"{path}/{key}")
    elif isinstance(found, list | tuple):
        assert len(found) == len(expected), path
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{path}/{index}")
    else:
        assert found == expected, path


def measure(toys: Toy, *, precision: str = "float32") -> None:
    initial = site_weights(toys, toys.net, SITES)
    site_matrices(toys.net, toys, toys.batches("train", batch_size=5), initial, precision=precision)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_analysis_leaves_no_trace(trained, precision):
    before = snapshot(*trained)
    measure(trained[0], precision=precision)
    assert_same(snapshot(*trained), before)


def test_evaluation_leaves_no_trace(trained):
    toys, _ = trained
    before = snapshot(*trained)
    evaluate(toys.net, toys, toys.batches("train", batch_size=5))
    assert_same(snapshot(*trained), before)


@pytest.mark.parametrize("fails", [False, True])
def test_a_listener_that_draws_random_numbers_or_fails_leaves_no_trace(trained, fails):
    toys, _ = trained
    before = snapshot(*trained)
    ears = {name: [Loud(fails=fails)] for name in SITES}
    if fails:
        with pytest.raises(KeyboardInterrupt):
            observe(toys.net, toys, toys.batches("train", batch_size=5), ears)
    else:
        observe(toys.net, toys, toys.batches("train", batch_size=5), ears)
    assert_same(snapshot(*trained), before)


@pytest.mark.parametrize("broken", ["outputs", "loss", "batches"])
def test_a_failure_inside_the_pass_leaves_no_trace(trained, broken):
    toys, _ = trained

    def fail(*_: object) -> None:
        torch.rand(1)
        raise ZeroDivisionError

    def failing_batches():
        yield next(toys.batches("train", batch_size=5))
        fail()

    before = snapshot(*trained)
    batches = failing_batches() if broken == "batches" else toys.batches("train", batch_size=5)
    handle = toys.net.readout.register_forward_pre_hook(fail) if broken == "outputs" else None
    kept = toys.loss
    toys.loss = fail if broken == "loss" else kept
    with pytest.raises(ZeroDivisionError):
        observe(toys.net, toys, batches, {name: [Loud(fails=False)] for name in SITES})
    toys.loss = kept
    if handle:
        handle.remove()
    assert_same(snapshot(*trained), before)


def test_the_check_itself_sees_every_kind_of_trace(trained):
    """Each line changes one thing that the tests above say is unchanged."""
    toys, optimizer = trained
    traces = [
        lambda: toys.net.first.weight.data.view(-1)[0].add_(1e-6),
        lambda: toys.net.norm.running_mean.add_(1e-6),
        lambda: toys.net.first.weight.grad.add_(1e-6),
        lambda: next(iter(optimizer.state.values()))["exp_avg"].add_(1e-6),
        lambda: torch.rand(1),
        lambda: np.random.rand(),
        lambda: random.random(),
        lambda: toys.net.dropout.eval(),
        lambda: toys.net.frozen.train(),
        lambda: toys.net.frozen.requires_grad_(True),
        lambda: toys.net.first.register_forward_hook(lambda *_: None),
    ]
    for change in traces:
        before = snapshot(*trained)
        change()
        with pytest.raises(AssertionError):
            assert_same(snapshot(*trained), before)


def test_inside_the_model_is_in_evaluation_mode_and_afterwards_in_its_mixed_mode(trained):
    toys, _ = trained
    with inert(toys.net):
        assert not any(module.training for module in toys.net.modules())
    assert toys.net.dropout.training
    assert not toys.net.frozen.training


def test_dropout_is_off_and_batch_statistics_are_the_stored_ones(trained):
    """So that two observations agree and no example speaks for another."""
    toys, _ = trained
    whole = evaluate(toys.net, toys, toys.batches("train", batch_size=12))
    single = evaluate(toys.net, toys, toys.batches("train", batch_size=1))
    assert whole == pytest.approx(single, rel=1e-12)
