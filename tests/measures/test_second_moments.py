"""H, H′, G, G′ and FACT of every layer against one-example-at-a-time float64 autodiff."""

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa import reference
from nfa.measures.agop import Agop
from nfa.measures.fact import Fact
from nfa.measures.second_moments import GradientMoment, InputMoment, OutputMoment
from nfa.measures.sides import rows_of
from nfa.observe.passes import observe
from nfa.observe.records import Part, Record, Source
from tests.support.toy_models import Sequences, Tied, Toy, half_square, layers, seeded, tensors_in, toy

CLOSE = {"rtol": 1e-9, "atol": 1e-12}  # float64 on both sides


def measured(toys: Toy, site: str, *, batch_size: int, positions: str = "each"):
    """H, H′, G, G with G′ kept, and FACT of a site after one pass."""
    weight = toys.net.get_submodule(site).weight.detach()
    measures = [kind(weight, positions=positions) for kind in (InputMoment, OutputMoment, GradientMoment, Fact)]
    measures.insert(3, GradientMoment(weight, positions=positions, output_side=True))
    observe(toys.net, toys, toys.batches("train", batch_size=batch_size), {site: lambda _: measures})
    return measures


def assert_equal_to_reference(toys: Toy, site: str, *, batch_size: int, positions: str = "each") -> None:
    weight = toys.net.get_submodule(site).weight.detach()
    h, z = (read(toys.net, site, toys.inputs) for read in (reference.site_inputs, reference.site_outputs))
    delta = reference.loss_gradients(toys.net, site, toys.inputs, toys.targets, half_square)
    g = -delta @ weight
    paired = reference.second_moment(g, h, positions=positions)
    H, out_H, G, out_G = (reference.second_moment(x, x, positions=positions) for x in (h, z, g, delta))
    *moments, fact = measured(toys, site, batch_size=batch_size, positions=positions)
    for moment, expected in zip(moments, [H, out_H, G, G], strict=True):
        torch.testing.assert_close(moment.value().dense(), expected, **CLOSE)
    torch.testing.assert_close(moments[3].output_side().dense(), out_G, **CLOSE)
    torch.testing.assert_close(fact.value().dense(), (paired + paired.T) / 2, **CLOSE)
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


@pytest.mark.parametrize("sizes", [(2, 9, 3), (9, 2, 3), (4, 4, 3)], ids=["i < o", "i > o", "i = o"])
def test_both_sides_of_a_site_equal_the_reference(sizes):
    """G is accumulated on the input side where that is cheaper, on the output side where G′ is wanted as well."""
    toys = toy(seeded(layers, *sizes), 6, sizes[0], sites=["0", "2"])
    assert_equal_to_reference(toys, "0", batch_size=4)
    assert_equal_to_reference(toys, "2", batch_size=4)


def test_the_output_side_is_kept_where_it_was_asked_for_and_refused_where_it_was_not():
    toys = toy(seeded(layers, 2, 9, 3), 6, 2, sites=["0"])
    _, _, without, with_it, _ = measured(toys, "0", batch_size=4)
    assert with_it.output_side().size == 9
    with pytest.raises(ValueError, match="ask for output_side"):
        without.output_side()


@pytest.mark.parametrize("shape", [(3, 20), (20, 3)], ids=["i < o", "i > o"])
def test_nothing_that_is_kept_grows_with_the_number_of_examples_once_they_are_more_than_the_side(shape):
    def stored(n: int) -> list[list[tuple[int, ...]]]:
        toys = toy(seeded(layers, *shape, 2), n, shape[0], sites=["0"])
        measures = measured(toys, "0", batch_size=3)
        return [[tuple(tensor.shape) for tensor in tensors_in(measure)] for measure in measures]

    few, many = stored(20), stored(64)
    assert few == many
    assert all(few)
    largest = max(shape) ** 2
    assert all(torch.Size(size).numel() <= largest for sizes in many for size in sizes)
    assert all(sum(torch.Size(size).numel() for size in sizes) <= largest for sizes in stored(10))


@pytest.mark.parametrize("kind", [Agop, InputMoment, OutputMoment, GradientMoment, Fact])
def test_a_measure_reads_the_parts_that_it_needs_and_no_others(kind):
    """A part that is asked for and not read would be copied or unfolded for nothing."""
    parts = {Part.INPUTS: torch.ones(4, 1, 2), Part.OUTPUTS: torch.ones(4, 1, 3)}
    gradient = None if kind.source is Source.FORWARD else torch.ones(4, 1, 3)

    def hear(needs: frozenset[Part]) -> None:
        given = {part.value: tensor for part, tensor in parts.items() if part in needs}
        kind(torch.ones(3, 2)).update(Record(**given, gradient=gradient))

    needs = kind(torch.ones(3, 2)).needs
    hear(needs)
    for part in needs:
        with pytest.raises(AssertionError):
            hear(needs - {part})


@pytest.mark.parametrize("kind", [InputMoment, OutputMoment, GradientMoment, Fact])
def test_a_mean_over_no_examples_is_an_error(kind):
    with pytest.raises(ValueError, match="no examples"):
        kind(torch.ones(3, 2)).value()


def test_fact_equals_nfm_up_to_lambda_at_a_stationary_point_of_ridge_regression():
    """Closed form: W (E[h hᵀ] + λ) = E[y hᵀ] minimises the mean ½‖Wh − y‖² + ½λ‖W‖², and there E[g hᵀ] = λ WᵀW."""
    random = torch.Generator().manual_seed(0)
    h, y = (torch.randn(40, size, generator=random, dtype=torch.float64) for size in (4, 3))
    penalty = 0.3
    weight = torch.linalg.solve(h.T @ h / 40 + penalty * torch.eye(4, dtype=torch.float64), h.T @ y / 40).T.contiguous()
    net = nn.Linear(4, 3, bias=False).double()
    net.weight.data.copy_(weight)
    toys = Toy(nn.Sequential(net), h, y, ["0"])
    fact = measured(toys, "0", batch_size=16)[-1].value().dense()
    torch.testing.assert_close(fact, penalty * weight.T @ weight, rtol=1e-9, atol=1e-12)


def test_a_sum_over_positions_that_is_only_a_rounding_error_is_zero():
    """As of the gradients of an attention's keys, which softmax makes add up to 0."""
    x = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0))
    balanced = x - x.mean(dim=1, keepdim=True)
    assert (balanced.sum(dim=1) != 0).any()
    assert (rows_of(balanced, "sum") == 0).all()
    mixed = torch.cat([balanced[:2], x[2:]])
    assert torch.equal(rows_of(mixed, "sum")[2:], x[2:].sum(dim=1))
