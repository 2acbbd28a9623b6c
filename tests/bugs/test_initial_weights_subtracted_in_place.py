"""Fault 2: W − W⁽⁰⁾ was subtracted in place, which put the difference into the network under analysis."""

import torch

from nfa.observe.passes import site_weights
from nfa.studies.alignment import AlignmentOptions, alignment
from tests.support.toy_models import layers, seeded, site_matrices, toy


def test_neither_the_network_nor_the_initial_weights_are_edited_and_the_second_analysis_is_the_first():
    toys = toy(seeded(layers, 4, 6, 5, 2), 7, 4, sites=["0", "2"])
    initial = site_weights(toys, toys.net, ["0", "2"])
    with torch.no_grad():
        toys.net[0].weight.mul_(1.5)
    weights = {name: weight.clone() for name, weight in toys.net.state_dict().items()}
    given = {name: weight.clone() for name, weight in initial.items()}

    def analyse(power: float) -> dict[str, float]:
        matrices = site_matrices(toys.net, toys, toys.batches("train", batch_size=3), initial)
        return dict(alignment(matrices, options=AlignmentOptions(agop_power=power)).scalars)

    first, rooted = analyse(1), analyse(0.5)
    assert (analyse(1), analyse(0.5)) == (first, rooted)
    assert set(first) == {"0/agop_nfm", "0/agop_nfm_init_removed", "2/agop_nfm"}
    assert all(torch.equal(weight, weights[name]) for name, weight in toys.net.state_dict().items())
    assert all(torch.equal(weight, given[name]) for name, weight in initial.items())
