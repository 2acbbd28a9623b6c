"""The readout is found by what a model does, and AGOP through it is that of one output after another."""

from typing import Any

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.maths.standard_errors import Sampling, mean_of
from nfa.measures import site_matrices
from nfa.measures.site_matrices import Conventions, SiteMeasures
from nfa.observe import readouts
from nfa.observe.door import few_of, find_sites
from nfa.observe.readouts import Readout, find_readout
from nfa.studies.alignment import alignment
from tests.support.snapshots import assert_same, snapshot
from tests.support.toy_models import Sequences, Tied, Toy, layers, seeded, toy

CLOSE = {"rtol": 1e-10, "atol": 1e-13}  # float64 on both sides
IN_FLOAT32 = 1e-6


class Wrapped(nn.Module):
    """A chain 4 → 6 → 5 → 9 whose features and outputs are changed by functions."""

    def __init__(self, before: Any = torch.tanh, after: Any = lambda z: z) -> None:
        super().__init__()
        self.first, self.second, self.readout = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 9)
        self.before, self.after = before, after

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.before(self.second(torch.tanh(self.first(inputs))))
        outputs: Tensor = self.after(self.readout(hidden))
        return outputs


class Positions(nn.Module):
    """Outputs at every position: [n s i] → [n s k]."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(features, hidden), nn.Linear(hidden, hidden)
        self.readout = nn.Linear(hidden, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(inputs))
        mixed = torch.softmax(hidden @ hidden.transpose(1, 2), dim=-1) @ hidden
        outputs: Tensor = self.readout(torch.tanh(self.second(mixed)))
        return outputs


def three(net: nn.Module, n: int = 11, **options: Any) -> Toy:
    return toy(net, n, 4, sites=["first", "second", "readout"], **options)


def found(toys: Toy) -> Readout | None:
    return find_readout(toys.net, toys, few_of(toys), find_sites(toys.net, toys, few_of(toys)))


def agops(toys: Toy, batch_size: int = 4, **conventions: Any) -> dict[str, Tensor]:
    measures = SiteMeasures(toys, list(toys.sites_named), frozenset({"agop", "nfm"}), Conventions(**conventions))
    made = measures(toys.net, toys.batches("train", batch_size=batch_size))
    return {name: mean_of(of["agop"]).dense() for name, of in made.items()}


def expected(toys: Toy, site: str, **conventions: Any) -> Tensor:
    return reference.agop(reference.jacobians(toys.net, site, toys.inputs), **conventions)


def assert_exact(toys: Toy, **conventions: Any) -> None:
    for batch_size in (4, len(toys.inputs)):
        for site, matrix in agops(toys, batch_size, **conventions).items():
            torch.testing.assert_close(matrix, expected(toys, site, **conventions), **CLOSE)


ELEMENTWISE = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "in place": lambda z: z.relu_(),
    "gelu": F.gelu,
    "silu": F.silu,
    "nothing": lambda z: z,
    "scaled": lambda z: 3 * torch.sigmoid(z) - z,
}
MIXING = {
    "softmax": lambda z: z.softmax(dim=-1),
    "layer norm": lambda z: F.layer_norm(z, (5,)),
    "order": lambda z: z.flip(-1),
    "norm": lambda z: z / z.norm(dim=-1, keepdim=True),
    "sum": lambda z: z + z.sum(dim=-1, keepdim=True),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_site_is_behind_the_readout_where_a_function_of_each_entry_alone_is_between_them(name):
    toys = three(seeded(Wrapped, ELEMENTWISE[name]))
    assert found(toys) == Readout("readout", (9, 5), frozenset({"second"}))
    assert_exact(toys)


@pytest.mark.parametrize("name", MIXING)
def test_a_function_that_mixes_entries_is_not_taken_for_one_that_does_not(name):
    toys = three(seeded(Wrapped, MIXING[name]))
    assert found(toys) == Readout("readout", (9, 5), frozenset())
    assert_exact(toys)


@pytest.mark.parametrize(
    "after",
    [
        lambda z: z.softmax(dim=-1),
        lambda z: 2 * z,
        lambda z: z.flip(-1),
        lambda z: z[:, :7],
        lambda z: z + z.detach(),
        lambda z: torch.cat([z, z], dim=-1),
    ],
    ids=["softmax", "scale", "order", "some outputs", "another term", "two heads"],
)
def test_outputs_that_are_not_the_product_itself_are_not_taken_for_it(after):
    toys = three(seeded(Wrapped, torch.tanh, after))
    assert found(toys) is None
    assert_exact(toys)


class Heads(Wrapped):
    """A second head that reads an earlier layer."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(6, 9)

    def forward(self, inputs: Tensor) -> Tensor:
        first = torch.tanh(self.first(inputs))
        outputs: Tensor = self.readout(torch.tanh(self.second(first))) + self.other(first)
        return outputs


class MovedBias(Wrapped):
    """The product's own function adds what another layer says: addmm(U x, h, Wᵀ)."""

    def forward(self, inputs: Tensor) -> Tensor:
        first = torch.tanh(self.first(inputs))
        added, hidden = first.sum(dim=1, keepdim=True) * self.readout.bias, torch.tanh(self.second(first))
        return torch.addmm(added, hidden, self.readout.weight.T)


class Twice(nn.Module):
    """A readout that is used twice, the second time on what it has returned."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.readout = nn.Linear(4, 6), nn.Linear(9, 6), nn.Linear(6, 9)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.readout(torch.tanh(self.second(self.readout(torch.tanh(self.first(inputs))))))
        return outputs


@pytest.mark.parametrize("build", [Heads, Twice])
def test_outputs_that_do_not_all_come_through_one_use_of_the_readout_are_taken_one_by_one(build):
    toys = three(seeded(build))
    assert found(toys) is None
    assert_exact(toys)


def test_a_product_that_adds_what_another_layer_says_is_no_readout():
    """Whose outputs are its own, but do not come from its features alone."""
    toys = toy(seeded(MovedBias), 11, 4, sites=["", "first", "second"])
    sites = find_sites(toys.net, toys, few_of(toys))
    assert {"first", "second"} <= sites.seen.keys()
    assert find_readout(toys.net, toys, few_of(toys), sites) is None
    measures = SiteMeasures(toys, ["first", "second"], frozenset({"agop"}), found=sites)
    for site, of in measures(toys.net, toys.batches("train", batch_size=4)).items():
        torch.testing.assert_close(mean_of(of["agop"]).dense(), expected(toys, site), **CLOSE)


class Autoencoder(nn.Module):
    """One matrix, used by both layers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 9))
        self.middle = nn.Linear(5, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.middle(torch.tanh(F.linear(inputs, self.weight)))) @ self.weight


def test_agop_of_a_network_whose_readout_is_its_first_matrix_as_well_equals_the_reference():
    toys = toy(seeded(Autoencoder), 8, 9, sites=["", "middle"])
    sites = find_sites(toys.net, toys, few_of(toys))
    measures = SiteMeasures(toys, ["middle"], frozenset({"agop"}), found=sites)
    made = measures(toys.net, toys.batches("train", batch_size=3))["middle"]["agop"]
    torch.testing.assert_close(mean_of(made).dense(), expected(toys, "middle"), **CLOSE)


@given(
    st.lists(st.integers(1, 8), min_size=2, max_size=4),
    st.integers(1, 20),
    st.integers(1, 6),
    st.integers(1, 7),
    st.sampled_from([nn.Tanh, nn.Sigmoid, nn.SiLU]),
    st.booleans(),
)
@settings(max_examples=25)
def test_agop_of_any_chain_with_any_number_of_outputs_equals_the_reference(sizes, outputs, n, batch_size, kind, bias):
    names = [str(2 * index) for index in range(len(sizes))]
    toys = toy(seeded(layers, *sizes, outputs, activation=kind, bias=bias), n, sizes[0], sites=names)
    for site, matrix in agops(toys, batch_size).items():
        torch.testing.assert_close(matrix, expected(toys, site), **CLOSE)


@pytest.mark.parametrize("positions", ["each", "sum"])
@pytest.mark.parametrize("centre", ["none", "jacobian"])
@pytest.mark.parametrize("build", [Sequences, Positions, Tied])
def test_every_convention_holds_through_the_readout(build, positions, centre):
    sites = ["shared", "readout"] if build is Tied else ["first", "second", "readout"]
    toys = toy(seeded(build, 3, 4, 7), 6, 3, 3, sites=sites)
    assert found(toys).shape == (7, 4)
    assert_exact(toys, positions=positions, centre=centre)


@pytest.mark.parametrize("build", [lambda: seeded(layers, 12, 40, 30, 60), lambda: seeded(layers, 12, 20, 16, 9)])
def test_float32_is_within_1e_6_of_the_way_of_one_output_after_another(build, monkeypatch):
    toys = toy(build(), 40, 12, sites=["0", "2", "4"], dtype=torch.float32)
    through = agops(toys, 16)
    monkeypatch.setattr(site_matrices, "find_readout", lambda *_: None)
    for site, matrix in agops(toys, 16).items():
        assert (through[site] - matrix).norm() <= IN_FLOAT32 * matrix.norm()


@pytest.mark.parametrize("sizes", [(6, 20, 8, 30), (6, 8, 20, 9)], ids=["more outputs", "more features"])
def test_standard_errors_and_levels_are_those_of_one_output_after_another(sizes, monkeypatch):
    toys = toy(seeded(layers, *sizes), 60, 6, sites=["0", "2"])

    def values() -> dict[str, float]:
        measures = SiteMeasures(toys, ["0", "2"], frozenset({"agop", "nfm"}), errors=True)
        made = measures(toys.net, toys.batches("train", batch_size=16))
        relations = ("agop_nfm", "agop_nfm_overlap", "agop_stable_rank")
        return dict(alignment(made, relations, sampling=Sampling(60, 500)).scalars)

    through = values()
    monkeypatch.setattr(site_matrices, "find_readout", lambda *_: None)
    assert any(key.endswith("_se") for key in through)
    assert through == pytest.approx(values(), rel=1e-8)


class Sometimes(Wrapped):
    """A function of each entry alone for small inputs, and of all of them for large ones."""

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.second(torch.tanh(self.first(inputs))))
        large = (inputs.abs().amax(dim=1, keepdim=True) > 1e3).to(inputs)
        outputs: Tensor = self.readout(hidden * (1 + large * hidden.sum(dim=1, keepdim=True)))
        return outputs


@pytest.mark.parametrize("n_large", [1, 3])
def test_examples_for_which_entries_mix_are_noticed_in_their_batch(n_large):
    """The few examples of the door are small."""
    toys = three(seeded(Sometimes), n=12)
    toys.inputs[12 - n_large :] *= 1e4
    assert found(toys).behind == {"second"}
    assert_exact(toys)


@pytest.mark.parametrize(
    ("sizes", "sites", "backward_passes"),
    [
        ((6, 5, 4, 20), ["0", "2", "4"], 2 + 4),  # σ′ and its test, then a pass for each feature
        ((6, 5, 4, 20), ["2"], 2),
        ((6, 25, 30, 12), ["2"], 2),
        ((6, 25, 30, 12), ["0"], 12),
        ((6, 5, 30, 12), ["2"], 12),  # the sum of few inputs is smaller than one product of slopes
    ],
)
def test_backward_passes_are_no_more_than_features_and_none_where_slopes_are_enough(
    sizes, sites, backward_passes, monkeypatch
):
    toys, calls = toy(seeded(layers, *sizes), 7, 6, sites=["0", "2", "4"]), []
    measures = SiteMeasures(toys, sites, frozenset({"agop"}))
    measures(toys.net, toys.batches("train", batch_size=7))
    original = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
    measures(toys.net, toys.batches("train", batch_size=7))
    assert len(calls) == backward_passes


@pytest.mark.parametrize("value", [0.0, float("inf")])
def test_a_readout_of_zeros_is_found_and_one_that_is_not_finite_gives_what_outputs_give(value):
    toys = three(seeded(Wrapped))
    sites = find_sites(toys.net, toys, few_of(toys))
    readout = find_readout(toys.net, toys, few_of(toys), sites)
    with torch.no_grad():
        toys.net.readout.weight.fill_(value)
    if not value:
        assert found(toys) == readout
    measures = SiteMeasures(toys, ["first", "second"], frozenset({"agop"}), found=sites, readout=readout)
    made = measures(toys.net, toys.batches("train", batch_size=4))
    for of in made.values():
        dense = mean_of(of["agop"]).dense()
        assert not dense.any() if not value else dense.isnan().all()


def test_a_batch_in_which_the_outputs_are_another_tensor_is_refused():
    class Early(Wrapped):
        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = super().forward(inputs)
            return outputs * 2 if len(inputs) == 3 else outputs

    toys = three(seeded(Early), n=11)
    with pytest.raises(readouts.Refusal, match="readout"):
        agops(toys, 8)


def test_a_batch_in_which_the_outputs_are_another_tensor_is_taken_as_it_is_where_that_is_possible():
    """With fewer outputs than features, directions are the outputs in any case."""

    class Early(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = layers(6, 12, 12, 5)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.net(inputs)
            return outputs * 1 if len(inputs) == 3 else outputs

    toys = toy(seeded(Early), 11, 6, sites=["net.0", "net.2", "net.4"])
    assert found(toys).behind == {"net.2"}
    for site, matrix in agops(toys, 8).items():
        torch.testing.assert_close(matrix, expected(toys, site), **CLOSE)


def test_an_example_whose_output_is_not_finite_leaves_no_agop_though_its_slope_is_finite():
    toys = toy(seeded(layers, 6, 12, 12, 5, activation=nn.ReLU), 12, 6, sites=["0", "2", "4"])
    sites = find_sites(toys.net, toys, few_of(toys))
    readout = find_readout(toys.net, toys, few_of(toys), sites)
    assert readout.behind == {"2"}
    toys.inputs[11] = 1e308
    toys.net[2].weight.data[0] = toys.net[0].weight.data[0, 0].abs() * 1e3
    measures = SiteMeasures(toys, ["2"], frozenset({"agop"}), found=sites, readout=readout)
    made = measures(toys.net, toys.batches("train", batch_size=4))["2"]["agop"]
    assert not toys.net(toys.inputs).isfinite().all()
    assert mean_of(made).dense().isnan().any()


def test_looking_for_the_readout_changes_nothing():
    for build in (Wrapped, Heads):
        toys = three(seeded(build), dtype=torch.float32)
        before = snapshot(toys)
        found(toys)
        assert_same(snapshot(toys), before)


@pytest.mark.parametrize("frozen", [False, True])
def test_convolutions_and_frozen_layers_have_the_same_agop(frozen, monkeypatch):
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(9, 4), nn.GELU(), nn.Linear(4, 12))
    toys = toy(net.requires_grad_(not frozen), 7, 2, 5, sites=["0", "3", "5"])
    through = agops(toys)
    monkeypatch.setattr(site_matrices, "find_readout", lambda *_: None)
    for site, matrix in agops(toys).items():
        torch.testing.assert_close(through[site], matrix, **CLOSE)
