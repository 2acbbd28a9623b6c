"""Observation leaves no trace: bitwise the same before and after, also where it ends in an exception."""

import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from nfa.measures.agop_estimate import AgopEstimate
from nfa.measures.evaluation import evaluate
from nfa.measures.site_matrices import Conventions, SiteMeasures
from nfa.observe.directions import Directions
from nfa.observe.inertness import inert
from nfa.observe.passes import observe, site_weights
from nfa.observe.records import Part, Source
from nfa.relations import MATRICES
from tests.support.snapshots import assert_same, snapshot
from tests.support.toy_models import Noisy, Toy, seeded, toy

SITES = ["first", "frozen", "readout"]


class Loud:
    """Draws from every generator, and may fail."""

    source, needs = Source.LOSS, frozenset(Part)

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


def measure(toys: Toy, sites: list[str], **conventions: object) -> None:
    """Every matrix."""
    initial = site_weights(toys, toys.net, sites)
    measures = SiteMeasures(toys, sites, frozenset(MATRICES), Conventions(**conventions), initial)
    measures(toys.net, toys.batches("train", batch_size=5))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_analysis_leaves_no_trace(trained, precision):
    before = snapshot(*trained)
    measure(trained[0], SITES, precision=precision)
    assert_same(snapshot(*trained), before)


def test_random_directions_leave_no_trace(trained):
    """They are drawn from no generator."""
    toys, _ = trained
    estimates = {name: lambda weight: [AgopEstimate(weight, 2)] for name in SITES}
    before = snapshot(*trained)
    observe(toys.net, toys, toys.batches("train", batch_size=5), estimates, directions=Directions(2, seed=1))
    assert_same(snapshot(*trained), before)


class Attending(nn.Module):
    """Attention, whose products are heard by standing in for F.linear."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.readout = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.readout(self.attention(inputs, inputs, inputs)[0].sum(dim=1))


@pytest.mark.parametrize("fails", [False, True])
def test_listening_to_attention_leaves_no_trace_in_pytorch(fails):
    toys = toy(seeded(Attending), 6, 5, 4, sites=["attention"])
    sites = [f"attention.{part}_proj" for part in ("q", "k", "v", "out")]
    if fails:
        toys.net.readout.register_forward_pre_hook(interrupted)
    before = snapshot(toys)
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        measure(toys, sites)
    assert_same(snapshot(toys), before)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_evaluation_leaves_no_trace(trained):
    toys, _ = trained
    before = snapshot(*trained)
    evaluate(toys.net, toys, toys.batches("train", batch_size=5))
    assert_same(snapshot(*trained), before)


@pytest.mark.parametrize("fails", [False, True])
def test_a_listener_that_draws_random_numbers_or_fails_leaves_no_trace(trained, fails):
    toys, _ = trained
    before = snapshot(*trained)
    ears = {name: lambda _: [Loud(fails=fails)] for name in SITES}
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
        observe(toys.net, toys, batches, {name: lambda _: [Loud(fails=False)] for name in SITES})
    toys.loss = kept
    if handle:
        handle.remove()
    assert_same(snapshot(*trained), before)


def test_the_check_itself_sees_every_kind_of_trace(trained, monkeypatch):
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
        lambda: monkeypatch.setattr(F, "linear", torch.add),
        lambda: torch.backends.mha.set_fastpath_enabled(False),
    ]
    for change in traces:
        before = snapshot(*trained)
        change()
        with pytest.raises(AssertionError):
            assert_same(snapshot(*trained), before)
    torch.backends.mha.set_fastpath_enabled(True)


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


def test_containers_of_a_module_keep_their_contents_and_their_order():
    """Those that were empty, too, and those that are replaced."""
    net = seeded(Noisy, 5, 8, 3)
    net.past, net.replaced, net.empty, net.names = [1, 2], {"a": 1}, [], {"b": 2, "a": 1}
    hooks, attributes = net._forward_hooks, list(vars(net))
    with inert(net):
        net.register_forward_hook(lambda *_: None)
        net.register_buffer("more", torch.ones(2))
        net.past.reverse()
        net.empty.append(3)
        net.names["b"] = net.names.pop("b")
        net.replaced, net.added = {}, 1
    assert (net.past, net.replaced, net.empty, list(net.names.items())) == ([1, 2], {"a": 1}, [], [("b", 2), ("a", 1)])
    assert net._forward_hooks is hooks
    assert not hooks
    assert list(vars(net)) == attributes
    assert "more" not in dict(net.named_buffers())
