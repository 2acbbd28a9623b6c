"""Relations do not depend on the units of weights and inputs: products leave no number's range."""

import math

import pytest
import torch

from nfa.maths.standard_errors import Sampling
from nfa.measures.site_matrices import Conventions, SiteMeasures
from nfa.observe.directions import Directions
from nfa.observe.passes import site_weights
from nfa.relations import OF_ANY_MODEL, needed
from nfa.studies.alignment import AlignmentOptions, alignment
from tests.support.toy_models import layers, seeded, toy

NARROW, WIDE = (9, 20, 5, 3), (20, 9, 12, 3)


def relations(sizes, of_weights=1.0, of_inputs=1.0, directions=0, names=OF_ANY_MODEL, **options):
    """Every relation of a network without biases whose function does not change with the scale of its weights."""
    net = seeded(layers, *sizes, activation=torch.nn.ReLU, bias=False)
    toys = toy(net, 40, sizes[0], sites=["0", "2"], dtype=torch.float32)
    with torch.no_grad():
        toys.inputs *= of_inputs
        net[0].weight /= of_inputs
        net[0].weight *= of_weights
        net[2].weight /= of_weights
    initial = {name: weight / 2 + weight.roll(1, 0) / 3 for name, weight in site_weights(toys, net, ["0", "2"]).items()}
    conventions = Conventions(directions=Directions(directions))
    measures = SiteMeasures(toys, ["0", "2"], needed(names, levels=True), conventions, initial, errors=True)
    found = measures(net, toys.batches("train", batch_size=40))
    return alignment(found, names, AlignmentOptions(top_k=2, **options), sampling=Sampling(40, 1000)).scalars


@pytest.mark.parametrize("sizes", [NARROW, WIDE])
@pytest.mark.parametrize("options", [{}, {"centre": "entry"}, {"agop_power": 0.5}])
@pytest.mark.parametrize(("of_weights", "of_inputs"), [(1e-15, 1), (1e15, 1), (1e-9, 1), (1, 1e-12), (1, 1e9)])
def test_every_relation_is_the_same_in_other_units(sizes, options, of_weights, of_inputs):
    ordinary, found = relations(sizes, **options), relations(sizes, of_weights, of_inputs, **options)
    assert found.keys() == ordinary.keys()
    for key, value in ordinary.items():
        assert found[key] == pytest.approx(value, rel=1e-3, abs=1e-4), key


def test_random_directions_are_the_same_in_other_units():
    names = ["agop_nfm", "g_vs_m", "out_h_vs_m"]
    ordinary, found = (relations(NARROW, of_weights, directions=4, names=names) for of_weights in (1, 1e-15))
    assert found == pytest.approx(ordinary, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("of_weights", [1e-30, 1e-22, 1e-18, 1e18, 1e22, 1e30])
def test_a_relation_whose_sums_of_squares_vanish_in_float32_is_absent(of_weights):
    ordinary, found = relations(WIDE), relations(WIDE, of_weights)
    for key, value in found.items():
        assert math.isfinite(value), key
        assert value == pytest.approx(ordinary[key], rel=1e-2, abs=1e-3), key
