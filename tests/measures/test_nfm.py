"""NFM and the NFM of W − W⁽⁰⁾ are the reference's, on whichever side they are formed."""

import pytest
import torch

from nfa import reference
from nfa.measures.nfm import nfm, nfm_init_removed
from nfa.observe.passes import site_weights
from tests.support.toy_models import layers, seeded, toy


@pytest.mark.parametrize("shape", [(1, 1), (3, 9), (9, 3), (5, 5)])
def test_nfm_equals_the_reference(shape):
    W, initial = torch.randn(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(nfm(W).dense(), reference.nfm(W), rtol=1e-12, atol=1e-12)
    expected = reference.nfm_init_removed(W, initial)
    torch.testing.assert_close(nfm_init_removed(W, initial).dense(), expected, rtol=1e-12, atol=1e-12)


def test_no_matrix_larger_than_the_smaller_side_is_formed():
    assert nfm(torch.zeros(9, 3)).size == 3
    assert nfm(torch.zeros(9, 3)).factor is None
    assert nfm(torch.zeros(3, 9)).core is None


def test_neither_argument_is_edited():
    W, initial = torch.randn(2, 4, 3)
    kept = W.clone(), initial.clone()
    nfm_init_removed(W, initial)
    assert torch.equal(W, kept[0])
    assert torch.equal(initial, kept[1])


def test_the_weights_of_sites_are_copies_in_the_models_order():
    small_toy = toy(seeded(layers, 3, 4, 2), 2, 3, sites=["0", "2"])
    weights = site_weights(small_toy, small_toy.net, ["2", "0"])
    assert list(weights) == ["0", "2"]
    weights["0"].zero_()
    assert small_toy.net[0].weight.abs().min() > 0
    assert not weights["2"].requires_grad
