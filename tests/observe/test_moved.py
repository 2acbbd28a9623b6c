"""What is hidden behind a parameter that starts at zero is seen by the checks, and the model is left as it was."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nfa.errors import Refusal
from nfa.observe.autocast import set_aside
from nfa.observe.checks import check_model
from nfa.observe.door import few_of, find_sites
from nfa.observe.example_gradients import ExampleGradients
from nfa.observe.moved import moved, seen_moved
from tests.support.grams import Forward, everything, normal, probe, trainable
from tests.support.toy_models import seeded, toy


def zero(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def branch(hidden, **parts) -> Forward:
    """A network with a branch that is multiplied by zero at the start."""
    return Forward(
        lambda self, x: self.readout(torch.tanh(self.first(x)) + self.gate * hidden(self, self.first(x))),
        **{"first": seeded(nn.Linear, 5, 4), "readout": seeded(nn.Linear, 4, 3), "gate": zero(4), **parts},
    )


@pytest.mark.parametrize(
    ("hidden", "match"),
    [(lambda _, y: y - y.mean(dim=0), "depend on the others"), (lambda _, y: F.dropout(y, 0.5), "run twice")],
    ids=["coupled examples", "random numbers"],
)
def test_what_a_gate_at_zero_hides_is_refused_at_the_first_step(hidden, match: str) -> None:
    toys = toy(branch(hidden), 9, 5, sites=["first"])
    with pytest.raises(Refusal, match=match):
        check_model(toys.net, toys, few_of(toys))


def test_a_frozen_gate_at_zero_hides_what_is_never_seen() -> None:
    toys = toy(branch(lambda _, y: y - y.mean(dim=0)), 9, 5, sites=["first"])
    toys.net.gate.requires_grad_(False)
    check_model(toys.net, toys, few_of(toys))


def root(self: Forward, y: Tensor) -> Tensor:
    return torch.linalg.cholesky(self.spread + self.spread.T + 1e-3 * torch.eye(4)).sum() * y


def unbounded(self: Forward, y: Tensor) -> Tensor:
    return torch.log(1e-3 - self.spread.abs().amax()) * y


@pytest.mark.parametrize("hidden", [root, unbounded])
def test_a_model_that_computes_with_no_other_values_than_its_own_is_checked_as_it_is(hidden) -> None:
    toys = toy(branch(hidden, spread=zero(4, 4)), 9, 5, sites=["first", "readout"])
    check_model(toys.net, toys, few_of(toys))
    assert list(find_sites(toys.net, toys, few_of(toys)).seen) == ["first", "readout"]
    gradients = ExampleGradients(toys.net, toys, ["first.weight"], few_of(toys))
    assert gradients.door.exact == []


class Fold(nn.Module):
    """Time first, and folded into the examples, behind a projection that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.layer, self.readout = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        nn.init.zeros_(self.start.weight), nn.init.zeros_(self.start.bias)

    def forward(self, x: Tensor) -> Tensor:
        n, steps, _ = x.shape
        folded = self.start(x).transpose(0, 1).reshape(steps * n, -1)
        return self.readout(torch.tanh(self.layer(folded)).reshape(steps, n, -1).mean(dim=0))


def test_where_the_examples_are_is_seen_although_all_rows_are_zero_at_the_start() -> None:
    toys = toy(seeded(Fold), 9, 4, 5, sites=["start", "layer", "readout"])
    at_first = find_sites(toys.net, toys, few_of(toys)).seen["layer"].place
    nn.init.normal_(toys.net.start.weight)
    assert at_first == find_sites(toys.net, toys, few_of(toys)).seen["layer"].place


def test_a_gradient_that_no_rule_gives_is_seen_although_it_is_zero_at_the_start() -> None:
    net = branch(lambda self, y: y * self.first.weight.sum()).double()
    workload = probe(net, normal(9, 5))
    found = ExampleGradients(net, workload, trainable(net), everything(workload))
    assert found.door.exact == ["first.weight"]


def test_parameters_are_moved_if_all_of_their_entries_are_zero_or_tiny_and_restored_bitwise() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 4), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight.zero_(), net[2].weight.fill_(-0.0), net[3].weight.mul_(1e-6), net[0].bias.copy_(zero(3))
        net[0].bias[0] = 0.5
    state = {name: (one, one.clone(), one.data_ptr(), one._version) for name, one in net.named_parameters()}
    loss = net(torch.ones(1, 4)).sum()
    with moved(net) as changed:
        assert changed
        different = {name for name, (one, before, *_) in state.items() if not torch.equal(one, before)}
        assert different == {"1.weight", "1.bias", "2.weight", "3.weight"}
        assert bool((net[1].weight > 0).all()), "a root or a logarithm of it can be taken"
    for one, before, place, version in state.values():
        assert torch.equal(one.view(torch.int32), before.view(torch.int32))
        assert (one.data_ptr(), one._version) == (place, version)
    loss.backward()


def test_with_an_error_inside_they_are_restored_too() -> None:
    net = nn.Linear(4, 3, bias=False)
    nn.init.zeros_(net.weight)
    with pytest.raises(ValueError, match="inside"), moved(net):
        raise ValueError("inside")
    assert not net.weight.any()


def test_a_model_without_such_parameters_is_not_moved() -> None:
    with moved(seeded(nn.Linear, 4, 3)) as changed:
        assert not changed


def test_a_model_that_turns_autocast_on_itself_computes_with_the_values_of_now() -> None:
    """Autocast keeps its copies of weights until it is left, and studies turn it off around everything."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.readout = nn.Linear(5, 6), nn.Linear(6, 3)
            nn.init.zeros_(self.first.bias)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                outputs: Tensor = self.readout(torch.tanh(self.first(x)))
            return outputs.float()

    toys = toy(seeded(Mixed), 9, 5, sites=["first", "readout"])
    toys.net.float()
    toys.inputs = toys.inputs.float()
    with set_aside("cpu"):
        before = toys.net(toys.inputs)
        with moved(toys.net):
            assert not torch.equal(toys.net(toys.inputs), before)
            assert list(find_sites(toys.net, toys, few_of(toys)).seen) == ["first", "readout"]
        assert torch.equal(toys.net(toys.inputs), before)


def test_what_a_check_raises_is_about_the_model_as_it_is() -> None:
    net = nn.Linear(4, 3, bias=False)
    nn.init.zeros_(net.weight)

    def check(changed: bool) -> None:
        assert changed == bool(net.weight.any())
        raise Refusal(f"changed: {changed}", "", "")

    with pytest.raises(Refusal, match="changed: False"):
        seen_moved(net, check)
