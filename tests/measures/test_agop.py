"""AGOP of every layer, activation, batch size and convention against one-example-at-a-time float64 autodiff."""

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.maths.congruence import Congruence
from nfa.measures.agop import Agop
from nfa.observe.passes import observe, site_weights
from nfa.registry.families.mlp.model import ACTIVATIONS, MLP, initialise
from tests.support.toy_models import Sequences, Tied, Toy, layers, seeded, site_matrices, tensors_in, toy

CLOSE = {"rtol": 1e-9, "atol": 1e-12}  # float64 on both sides


def agops(toys: Toy, *, batch_size: int = 4, **conventions: str) -> dict[str, Congruence]:
    initial = site_weights(toys, toys.net, list(toys.sites_named))
    batches = toys.batches("train", batch_size=batch_size)
    matrices = site_matrices(toys.net, toys, batches, initial, **conventions)
    return {name: matrix["agop"] for name, matrix in matrices.items()}


def expected(toys: Toy, site: str, **conventions: str) -> Tensor:
    return reference.agop(reference.jacobians(toys.net, site, toys.inputs), **conventions)


def mlp(inputs: int, width: int, depth: int, classes: int, activation: str) -> MLP:
    net = MLP(inputs, classes, width=width, depth=depth, activation=activation)
    initialise(net, "default", torch.Generator().manual_seed(5))
    return net


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_layer_of_an_mlp_equals_the_reference_at_every_batch_size(activation):
    """On the output side (i ≥ o, layers 1 and 2) and on the input side (3 ≪ 24, layer 0), readout included."""
    names = [f"layers.{index}" for index in range(4)]
    toys = toy(mlp(3, 24, 3, 2, activation), 7, 3, sites=names)
    exact = {name: expected(toys, name) for name in names}
    for batch_size in (1, 3, 7):
        found = agops(toys, batch_size=batch_size)
        for name in names:
            torch.testing.assert_close(found[name].dense(), exact[name], **CLOSE)
    assert found["layers.0"].factor is None
    assert found["layers.1"].factor is not None


@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=5),
    st.sampled_from([nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.SiLU]),
    st.booleans(),
    st.integers(1, 6),
    st.integers(1, 7),
)
@settings(max_examples=20)
def test_any_chain_of_linear_maps_equals_the_reference(sizes, activation, bias, n, batch_size):
    names = [str(2 * index) for index in range(len(sizes) - 1)]
    toys = toy(seeded(layers, *sizes, activation=activation, bias=bias), n, sizes[0], sites=names)
    found = agops(toys, batch_size=batch_size)
    for name in names:
        torch.testing.assert_close(found[name].dense(), expected(toys, name), **CLOSE)


@pytest.mark.parametrize("positions", ["each", "sum"])
@pytest.mark.parametrize("centre", ["none", "jacobian"])
@pytest.mark.parametrize(("features", "hidden"), [(3, 12), (12, 3)], ids=["input side", "output side"])
@pytest.mark.parametrize(("build", "site"), [(Sequences, "first"), (Sequences, "second"), (Tied, "shared")])
def test_sites_with_positions_equal_the_reference_under_every_convention(
    positions, centre, features, hidden, build, site
):
    """Also for a module that is called twice in one forward pass: its calls' positions follow each other."""
    toys = toy(seeded(build, features, hidden, 2), 5, 4, features, sites=[site])
    found = agops(toys, batch_size=2, positions=positions, centre=centre)[site]
    torch.testing.assert_close(found.dense(), expected(toys, site, positions=positions, centre=centre), **CLOSE)


def test_every_convention_of_positions_and_centre_is_another_matrix():
    toys = toy(seeded(Sequences, 3, 6, 2), 5, 4, 3, sites=["first"])
    with torch.no_grad():
        for weights in toys.net.parameters():
            weights.mul_(3)
    found = [
        agops(toys, positions=positions, centre=centre)["first"].dense()
        for positions in ("each", "sum")
        for centre in ("none", "jacobian")
    ]
    for index, matrix in enumerate(found):
        for other in found[:index]:
            assert reference.cosine(matrix, other) < 0.999


@pytest.mark.parametrize("site", ["0", "2", "4"])
def test_the_square_root_equals_the_reference(site):
    """`agop_power=0.5`, on both sides of accumulation; null directions round to √1e-16."""
    toys = toy(seeded(layers, 3, 15, 4, 2), 6, 3, sites=["0", "2", "4"])
    J = reference.jacobians(toys.net, site, toys.inputs)
    torch.testing.assert_close(agops(toys)[site].sqrt().dense(), reference.agop(J, power=0.5), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("centre", ["none", "jacobian"])
def test_the_result_does_not_depend_on_the_batch_size(centre):
    toys = toy(seeded(Sequences, 3, 9, 2), 11, 4, 3, sites=["first", "second"])
    whole = agops(toys, batch_size=11, centre=centre)
    for batch_size in (1, 2, 5, 10, 100):
        for name, matrix in agops(toys, batch_size=batch_size, centre=centre).items():
            torch.testing.assert_close(matrix.dense(), whole[name].dense(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("shape", [(3, 20), (20, 3)], ids=["input side", "output side"])
def test_nothing_that_is_kept_grows_with_the_number_of_examples(shape):
    """Neither in number nor in size, in whatever object; and no more than i² + k·max(i, o) numbers a site."""

    def stored(n: int) -> list[tuple[int, ...]]:
        toys = toy(seeded(layers, shape[0], shape[1], 2), n, shape[0], sites=["0"])
        weight = toys.net[0].weight.detach()
        agop = Agop(weight, centre="jacobian")
        observe(toys.net, toys, toys.batches("train", batch_size=3), {"0": lambda _: [agop]})
        return sorted(tuple(tensor.shape) for tensor in tensors_in(agop) if tensor is not weight)

    few, many = stored(4), stored(64)
    assert few == many
    assert len(few) == 1 + 2 * 2  # the sum; a shift and a sum for each of two outputs
    assert sum(torch.Size(size).numel() for size in many) <= max(shape) ** 2 + 2 * max(shape)


def test_the_cheaper_side_is_the_one_accumulated():
    for o, i, side in [(40, 3, 3), (3, 40, 3), (16, 16, 16)]:
        weight = torch.zeros(o, i)
        kept = [tensor for tensor in tensors_in(Agop(weight)) if tensor is not weight]
        assert [tensor.shape for tensor in kept] == [(side, side)]


def test_an_output_that_ignores_a_site_adds_nothing():
    class Bypass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            self.unused(inputs)
            outputs: Tensor = self.used(inputs)
            return outputs

    toys = toy(seeded(Bypass), 5, 3, sites=["used", "unused"])
    found = agops(toys)
    assert torch.equal(found["unused"].dense(), torch.zeros(3, 3, dtype=torch.float64))
    torch.testing.assert_close(found["used"].dense(), expected(toys, "used"), **CLOSE)


def test_a_frozen_network_has_the_same_agop():
    toys = toy(seeded(layers, 4, 6, 5, 2), 6, 4, sites=["0", "2", "4"])
    before = agops(toys)
    toys.net.requires_grad_(False)
    for name, matrix in agops(toys).items():
        torch.testing.assert_close(matrix.dense(), before[name].dense(), rtol=1e-12, atol=1e-14)


def test_the_centred_agop_of_a_linear_network_is_zero():
    """Its Jacobian is the same everywhere; what rounding leaves of the difference is not a matrix to compare with."""
    for dtype in (torch.float32, torch.float64):
        net = seeded(layers, 4, 100, 90, 2, activation=nn.Identity)
        toys = toy(net, 50, 4, sites=["0", "2"], dtype=dtype)
        for batch_size in (1, 3, 49):
            for matrix in agops(toys, batch_size=batch_size, centre="jacobian").values():
                assert not matrix.dense().any()


def test_the_centred_agop_keeps_its_digits_where_the_jacobian_hardly_varies():
    """A nearly linear network in float32: the centred part is below 10⁻⁴ of the whole, and good to 10⁻³ of itself."""
    net = seeded(layers, 4, 12, 2)
    with torch.no_grad():
        net[0].weight.mul_(0.01)
    toys = toy(net, 40, 4, sites=["0"], dtype=torch.float32)
    exact, whole = (expected(toys, "0", centre=centre) for centre in ("jacobian", "none"))
    assert exact.trace() < 1e-4 * whole.trace()
    found = agops(toys, centre="jacobian")["0"].dense().double()
    assert (found - exact).norm() < 1e-3 * exact.norm()


def test_float32_is_within_1e_5_of_float64():
    toys = toy(seeded(layers, 30, 40, 20, 3, activation=nn.ReLU), 12, 30, sites=["0", "2"], dtype=torch.float32)
    for name, matrix in agops(toys).items():
        exact = expected(toys, name)
        assert (matrix.dense().double() - exact).norm() < 1e-5 * exact.norm()
