"""H, G, G′ and FACT of every layer against one-example-at-a-time float64 autodiff."""

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import Sequences, Tied, Toy, half_square, layers, seeded, toy

from nfa import reference
from nfa.measures.second_moments import Fact, GradientMoment, InputMoment
from nfa.observe.passes import observe

CLOSE = {"rtol": 1e-9, "atol": 1e-12}  # float64 on both sides


def measured(toys: Toy, site: str, *, batch_size: int, positions: str = "each"):
    """The three measures of a site after one pass."""
    weight = toys.net.get_submodule(site).weight.detach()
    measures = [kind(weight, positions=positions) for kind in (InputMoment, GradientMoment, Fact)]
    observe(toys.net, toys, toys.batches("train", batch_size=batch_size), {site: measures})
    return measures


def assert_equal_to_reference(toys: Toy, site: str, *, batch_size: int, positions: str = "each") -> None:
    weight = toys.net.get_submodule(site).weight.detach()
    h = reference.site_inputs(toys.net, site, toys.inputs)
    delta = reference.loss_gradients(toys.net, site, toys.inputs, toys.targets, half_square)
    inputs, gradients, fact = measured(toys, site, batch_size=batch_size, positions=positions)
    g = -delta @ weight
    torch.testing.assert_close(inputs.value().dense(), reference.second_moment(h, h, positions=positions), **CLOSE)
    torch.testing.assert_close(gradients.value().dense(), reference.second_moment(g, g, positions=positions), **CLOSE)
    output_side = reference.second_moment(delta, delta, positions=positions)
    torch.testing.assert_close(gradients.output_side().dense(), output_side, **CLOSE)
    if positions == "each":
        torch.testing.assert_close(fact.value().dense(), reference.fact(weight, h, delta), **CLOSE)


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=5),
    st.sampled_from([nn.Tanh, nn.Sigmoid, nn.SiLU]),
    st.integers(1, 6),
    st.integers(1, 7),
)
@settings(max_examples=15)
def test_every_layer_of_any_chain_equals_the_reference_at_every_batch_size(sizes, activation, n, batch_size):
    names = [str(2 * index) for index in range(len(sizes) - 1)]
    toys = toy(seeded(layers, *sizes, activation=activation), n, sizes[0], sites=names)
    for name in names:
        assert_equal_to_reference(toys, name, batch_size=batch_size)


@pytest.mark.parametrize("positions", ["each", "sum"])
@pytest.mark.parametrize(("build", "site"), [(Sequences, "first"), (Sequences, "second"), (Tied, "shared")])
def test_sites_with_positions_equal_the_reference(positions, build, site):
    toys = toy(seeded(build, 3, 5, 2), 5, 4, 3, sites=[site])
    assert_equal_to_reference(toys, site, batch_size=2, positions=positions)


def test_fact_equals_nfm_up_to_lambda_at_a_stationary_point_of_ridge_regression():
    """Closed form: W (E[h hᵀ] + λ) = E[y hᵀ] minimises the mean ½‖Wh − y‖² + ½λ‖W‖², and there E[g hᵀ] = λ WᵀW."""
    random = torch.Generator().manual_seed(0)
    h, y = (torch.randn(40, size, generator=random, dtype=torch.float64) for size in (4, 3))
    penalty = 0.3
    weight = torch.linalg.solve(h.T @ h / 40 + penalty * torch.eye(4, dtype=torch.float64), h.T @ y / 40).T.contiguous()
    net = nn.Linear(4, 3, bias=False).double()
    net.weight.data.copy_(weight)
    toys = Toy(nn.Sequential(net), h, y, ["0"])
    fact = measured(toys, "0", batch_size=16)[2].value().dense()
    torch.testing.assert_close(fact, penalty * weight.T @ weight, rtol=1e-9, atol=1e-12)
