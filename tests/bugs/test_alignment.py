"""Faults of programs that compare weights with gradients (AGOP and NFM), each in the words of what went wrong, and
tests that fail with it."""

import weakref

import pytest
import torch
import torch.nn as nn
from torch import Tensor

from nfa import reference
from nfa.errors import Refusal
from nfa.measures.agop import Agop
from nfa.measures.evaluation import evaluate
from nfa.observe.passes import observe, site_weights
from nfa.observe.records import Part, Source
from nfa.registry.families.mlp.model import ACTIVATIONS, MLP, initialise
from nfa.studies.alignment import AlignmentOptions, alignment
from tests.support.toy_models import half_square, layers, seeded, site_matrices, toy

# For layers ≥ 2 the activation was taken one layer too late, silently (the shape is the same); the gradient was that
# of a network which applies the layer twice.


def deep():
    net = MLP(4, 3, width=6, depth=4)
    with torch.no_grad():
        for index, layer in enumerate(net.layers):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(index)) / 2)
    return toy(net, 9, 4, sites=[f"layers.{index}" for index in range(5)])


@pytest.mark.parametrize("index", range(5))
def test_agop_of_every_layer_is_that_of_its_own_input_and_not_of_the_next_layers(index):
    toys = deep()
    initial = site_weights(toys, toys.net, list(toys.sites_named))
    found = site_matrices(toys.net, toys, toys.batches("train", batch_size=4), initial)
    matrix = found[f"layers.{index}"]["agop"].dense()
    exact = [reference.agop(reference.jacobians(toys.net, name, toys.inputs)) for name in toys.sites_named]
    torch.testing.assert_close(matrix, exact[index], rtol=1e-9, atol=1e-12)
    if 1 <= index < 4:
        assert reference.cosine(matrix, exact[index + 1]) < 0.99


@pytest.mark.parametrize("index", range(5))
def test_input_and_gradient_of_every_layer_are_its_own(index):
    class Recorder:
        source, needs = Source.LOSS, frozenset({Part.INPUTS})

        def __init__(self) -> None:
            self.heard = []

        def update(self, record) -> None:
            self.heard.append(record)

    toys, ear = deep(), Recorder()
    name = f"layers.{index}"
    observe(toys.net, toys, toys.batches("train", batch_size=4), {name: lambda _: [ear]})
    hidden = toys.inputs
    for layer in toys.net.layers[:index]:
        hidden = torch.relu(layer(hidden)).detach()
    delta = reference.loss_gradients(toys.net, name, toys.inputs, toys.targets, half_square)
    torch.testing.assert_close(torch.cat([record.inputs for record in ear.heard])[:, 0], hidden)
    torch.testing.assert_close(torch.cat([record.gradient for record in ear.heard]), delta, rtol=1e-9, atol=1e-12)


# W − W⁽⁰⁾ was subtracted in place, which put the difference into the network under analysis.


def test_neither_the_network_nor_the_initial_weights_are_edited_and_the_second_analysis_is_the_first():
    toys = toy(seeded(layers, 4, 6, 5, 2), 7, 4, sites=["0", "2"])
    initial = site_weights(toys, toys.net, ["0", "2"])
    with torch.no_grad():
        toys.net[0].weight.mul_(1.5)
    weights = {name: weight.clone() for name, weight in toys.net.state_dict().items()}
    given = {name: weight.clone() for name, weight in initial.items()}

    def analyse(power: float) -> dict[str, float]:
        matrices = site_matrices(toys.net, toys, toys.batches("train", batch_size=3), initial)
        return dict(alignment(matrices, options=AlignmentOptions(agop_power=power, chance=False)).scalars)

    first, rooted = analyse(1), analyse(0.5)
    assert (analyse(1), analyse(0.5)) == (first, rooted)
    assert set(first) == {"0/agop_nfm", "0/agop_nfm_init_removed", "2/agop_nfm"}
    assert all(torch.equal(weight, weights[name]) for name, weight in toys.net.state_dict().items())
    assert all(torch.equal(weight, given[name]) for name, weight in initial.items())


# 0/0 at epoch 0, and any exception at all, became 0.0 and was plotted as data.


def test_before_the_first_update_the_init_removed_similarity_is_absent():
    toys = toy(seeded(layers, 4, 6, 2), 5, 4, sites=["0"])
    initial = site_weights(toys, toys.net, ["0"])
    scalars = alignment(site_matrices(toys.net, toys, toys.batches("train", batch_size=3), initial)).scalars
    assert "0/agop_nfm_init_removed" not in scalars
    assert 0 < scalars["0/agop_nfm"] <= 1


@pytest.mark.parametrize("broken", ["weights of another shape", "an output that fails"])
def test_an_error_is_raised_and_is_no_number(broken):
    toys = toy(seeded(layers, 4, 6, 2), 5, 4, sites=["0"])
    initial = site_weights(toys, toys.net, ["0"])
    if broken == "weights of another shape":
        initial["0"] = torch.zeros(5, 4)
    else:
        toys.inputs = torch.zeros(5, 3, dtype=torch.float64)
    with pytest.raises((RuntimeError, TypeError), match=r"size|shape|Type-check"):
        site_matrices(toys.net, toys, toys.batches("train", batch_size=3), initial)


# Gradients were those of a batch-mean loss: their scale depended on the batch size, and the last, smaller batch was
# over-weighted.


def second_moment(batch_size: int) -> torch.Tensor:
    """Σ δᵀδ over the examples, as a measure of loss gradients adds it up."""

    class Moment:
        source, needs, total = Source.LOSS, frozenset(), 0

        def update(self, record) -> None:
            rows = record.gradient.flatten(0, 1)
            self.total = self.total + rows.T @ rows

    toys, moment = toy(seeded(layers, 4, 6, 3), 10, 4, sites=["0"]), Moment()
    observe(toys.net, toys, toys.batches("train", batch_size=batch_size), {"0": lambda _: [moment]})
    return moment.total


@pytest.mark.parametrize("batch_size", [1, 3, 4, 9, 100])
def test_every_batch_size_gives_the_same(batch_size):
    """10 examples: in batches of 3, 4 and 9 the last batch is a smaller one."""
    torch.testing.assert_close(second_moment(batch_size), second_moment(10), rtol=1e-12, atol=1e-14)
    toys = toy(seeded(layers, 4, 6, 3), 10, 4, sites=["0"])
    values = []
    for size in (batch_size, 10):
        agop = Agop(toys.net[0].weight.detach())
        observe(toys.net, toys, toys.batches("train", batch_size=size), {"0": lambda _, agop=agop: [agop]})
        values.append(agop.value().dense())
    torch.testing.assert_close(*values, rtol=1e-12, atol=1e-14)


def test_a_batch_mean_loss_is_refused():
    toys = toy(seeded(layers, 4, 6, 3), 10, 4, sites=["0"])
    toys.loss = lambda outputs, targets: half_square(outputs, targets).mean()

    class Recorder:
        source, needs = Source.LOSS, frozenset()

        def update(self, record) -> None:
            raise AssertionError(record)

    with pytest.raises(Refusal, match="one loss for each example"):
        observe(toys.net, toys, toys.batches("train", batch_size=3), {"0": lambda _: [Recorder()]})
    with pytest.raises(Refusal, match="one loss for each example"):
        evaluate(toys.net, toys, toys.batches("train", batch_size=3))


# The analysis re-implemented the forward pass with a relu, whatever the network's activation was.


def agop(activation: str) -> tuple[torch.Tensor, torch.Tensor]:
    net = MLP(4, 3, width=6, depth=3, activation=activation)
    initialise(net, "default", torch.Generator().manual_seed(0))
    toys = toy(net, 9, 4, sites=["layers.0"])
    initial = site_weights(toys, toys.net, ["layers.0"])
    found = site_matrices(toys.net, toys, toys.batches("train", batch_size=4), initial)["layers.0"]["agop"].dense()
    return found, reference.agop(reference.jacobians(toys.net, "layers.0", toys.inputs))


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "relu"])
def test_the_analysis_follows_the_networks_own_activation(activation):
    found, expected = agop(activation)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)
    assert (found - agop("relu")[0]).norm() > 0.01 * found.norm()


# The Jacobians of all examples were kept (9 GB at full size).


def test_a_batchs_gradients_are_gone_when_the_next_ones_are_heard():
    """One output direction of one batch lives at a time, at every site."""

    class Watcher:
        source, needs = Source.OUTPUT, frozenset()

        def __init__(self) -> None:
            self.seen, self.most = [], 0

        def update(self, record) -> None:
            self.seen.append(weakref.ref(record.gradient))
            self.most = max(self.most, sum(reference() is not None for reference in self.seen))

    toys = toy(seeded(layers, 4, 6, 5), 30, 4, sites=["0", "2"])
    watchers = {name: Watcher() for name in toys.sites_named}
    measures = {name: lambda weight, name=name: [Agop(weight), watchers[name]] for name in watchers}
    observe(toys.net, toys, toys.batches("train", batch_size=2), measures)
    for watcher in watchers.values():
        assert len(watcher.seen) == 15 * 5
        assert watcher.most <= 2
        assert not any(reference() is not None for reference in watcher.seen)


# The network's parameters were found by their position, so that only networks without biases worked.


class Unordered(nn.Module):
    """Biases, a normalisation, and layers declared in another order than they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.readout, self.second = nn.Linear(6, 3), nn.Linear(5, 6)
        self.scale, self.norm = nn.Parameter(torch.tensor(1.3)), nn.LayerNorm(6)
        self.first = nn.Linear(4, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.readout(self.norm(torch.relu(self.second(self.scale * torch.tanh(self.first(inputs))))))
        return outputs


def test_sites_are_found_by_name_whatever_else_the_network_holds():
    toys = toy(seeded(Unordered), 7, 4, sites=["first", "second", "readout"])
    initial = site_weights(toys, toys.net, list(toys.sites_named))
    found = site_matrices(toys.net, toys, toys.batches("train", batch_size=3), initial)
    assert list(found) == ["first", "second", "readout"]
    for name, matrices in found.items():
        exact = reference.agop(reference.jacobians(toys.net, name, toys.inputs))
        torch.testing.assert_close(matrices["agop"].dense(), exact, rtol=1e-9, atol=1e-12)
        weight = toys.net.get_submodule(name).weight.detach()
        torch.testing.assert_close(matrices["nfm"].dense(), reference.nfm(weight), rtol=1e-12, atol=1e-12)
