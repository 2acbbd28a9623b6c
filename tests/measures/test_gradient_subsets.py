"""Which parameters K is of: subsets by name, module and site; frozen ones, and those that the loss does not reach."""

import pytest
import torch
import torch.nn as nn

from nfa.errors import Refusal
from nfa.measures.gradient_gram import choose_parameters
from nfa.workloads.probe import Probe
from tests.support.grams import Forward, assert_close, expected_gram, found_gram, normal, probe, scrambled
from tests.support.toy_models import toy


def named() -> Probe:
    """`first` a Linear, `act` an activation, `norm` frozen, `head` with a Linear and a scale inside."""
    head = Forward(lambda self, x: self.map(x) * self.gain, map=nn.Linear(5, 3), gain=normal(3))
    parts = {"first": nn.Linear(4, 5), "act": nn.ReLU(), "norm": nn.LayerNorm(5), "head": head}
    net = scrambled(Forward(lambda self, x: self.head(self.norm(self.act(self.first(x)))), **parts))
    net.norm.requires_grad_(False)
    return probe(net, normal(9, 4))


CHOICES = {
    "all": ["first.weight", "first.bias", "head.gain", "head.map.weight", "head.map.bias"],
    "first.weight": ["first.weight"],
    "first": ["first.weight", "first.bias"],
    "head": ["head.gain", "head.map.weight", "head.map.bias"],
    "head*,!*.bias": ["head.gain", "head.map.weight"],
    r"/^head\.(gain|map\.b)/": ["head.gain", "head.map.bias"],
    "head*": ["head.gain", "head.map.weight", "head.map.bias"],
    "*.bias": ["first.bias", "head.map.bias"],
    "head.map, first.b*": ["first.bias", "head.map.weight", "head.map.bias"],
}


@pytest.mark.parametrize("pattern", CHOICES)
def test_a_subset_has_the_gram_matrix_of_its_own_gradients(pattern):
    workload = named()
    names = choose_parameters(workload, workload.network, pattern)
    assert sorted(names) == sorted(CHOICES[pattern])
    assert_close(found_gram(workload, names), expected_gram(workload, names))


def test_gram_matrices_of_disjoint_subsets_add_up():
    workload = named()
    parts = [found_gram(workload, choose_parameters(workload, workload.network, one)) for one in ("first", "head*")]
    assert_close(sum(parts), found_gram(workload))


def test_a_site_chooses_the_parameters_inside_it_whatever_the_model_calls_them():
    toys = toy(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)), 9, 4, sites=["0", "2"])
    toys.sites = lambda model: {"layer_1": model[0], "readout": model[2]}
    assert choose_parameters(toys, toys.net, "layer_*") == ["0.weight", "0.bias"]
    assert choose_parameters(toys, toys.net, "readout,0.bias") == ["0.bias", "2.weight", "2.bias"]


@pytest.mark.parametrize(("pattern", "said"), [
    ("act", "sites=act"),  # without parameters
    ("norm", "sites=norm"),  # frozen
    ("head, hed.*", r"sites=hed\.\*"),
])  # fmt: skip
def test_a_subset_that_no_trainable_parameter_is_in_is_refused_with_those_there_are(pattern, said):
    workload = named()
    with pytest.raises(Refusal, match=rf"{said}\n.*allowed: .*first, first\.bias, first\.weight, head, "):
        choose_parameters(workload, workload.network, pattern)


def test_a_frozen_model_is_refused():
    workload = named()
    with pytest.raises(Refusal, match="without trainable parameters"):
        choose_parameters(workload, workload.network.requires_grad_(False))


def test_parameters_that_the_loss_does_not_reach_count_as_zero():
    net = scrambled(
        Forward(lambda self, x: self.map(x), map=nn.Linear(4, 3), spare=nn.Linear(9, 9), none=torch.ones(0))
    )
    workload = probe(net, normal(9, 4))
    found = found_gram(workload)
    assert_close(found, expected_gram(workload))
    assert torch.equal(found, found_gram(workload, ["map.weight", "map.bias"]))
    assert not found_gram(workload, ["spare.weight"]).any()
    net.map.requires_grad_(False)
    assert not found_gram(workload, ["spare.weight"]).any()
