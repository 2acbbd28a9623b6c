"""Fault 3: 0/0 at epoch 0, and any exception at all, became 0.0 and was plotted as data."""

import pytest
import torch

from nfa.observe.passes import site_weights
from nfa.studies.alignment import alignment
from tests.support.toy_models import layers, seeded, site_matrices, toy


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
