"""Every matrix of every layer type against float64 autodiff, one example at a time, on the network's linear twin."""

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.measures.site_matrices import Conventions, SiteMeasures
from nfa.observe import passes
from nfa.observe.directions import Directions, signs
from nfa.observe.passes import site_weights
from nfa.reference.linear_twin import linear_twin
from tests.support.layer_types import CASES, Attention, Case, networks
from tests.support.toy_models import Toy, half_square, seeded, toy

CLOSE = {"rtol": 1e-9, "atol": 1e-12}  # float64 on both sides
NAMES = frozenset({"agop", "nfm", "nfm_init_removed", "g", "h", "fact", "out_g", "out_h", "out_m"})


def found(
    toys: Toy, sites: list[str], batch_size: int = 2, *, wanted: frozenset[str] = NAMES, **conventions
) -> dict[str, dict[str, Tensor]]:
    """The fast path's matrices, dense; the initial weights are halves of the weights."""
    initial = {name: weight / 2 for name, weight in site_weights(toys, toys.net, sites).items()}
    measure = SiteMeasures(toys, sites, wanted, Conventions(**conventions), initial)
    matrices = measure(toys.net, toys.batches("train", batch_size=batch_size))
    return {site: {name: matrix.dense() for name, matrix in of_site.items()} for site, of_site in matrices.items()}


def exact(toys: Toy, site: str, positions: str = "each", centre: str = "none") -> dict[str, Tensor]:
    """The same by the reference, of a site of the network's twin."""
    twin = linear_twin(toys.net)
    W = twin.get_submodule(site).weight.detach()
    h, z = (read(twin, site, toys.inputs) for read in (reference.site_inputs, reference.site_outputs))
    delta = reference.loss_gradients(twin, site, toys.inputs, toys.targets, half_square)
    g, J = -delta @ W, reference.jacobians(twin, site, toys.inputs)
    pairs = {"g": (g, g), "h": (h, h), "fact": (g, h), "out_g": (delta, delta), "out_h": (z, z)}
    moments = {name: reference.second_moment(*pair, positions=positions) for name, pair in pairs.items()}
    return moments | {
        "fact": (moments["fact"] + moments["fact"].T) / 2,
        "agop": reference.agop(J, positions=positions, centre=centre),
        "nfm": reference.nfm(W),
        "nfm_init_removed": reference.nfm_init_removed(W, W / 2),
        "out_m": reference.nfm(W.T),
    }


def assert_equal(matrices: dict[str, Tensor], expected: dict[str, Tensor], where: str) -> None:
    assert matrices.keys() == expected.keys()
    for name, matrix in matrices.items():
        torch.testing.assert_close(
            matrix, expected[name], **CLOSE, msg=lambda text, name=name: f"{name} {where}: {text}"
        )


def check(net: nn.Module, case: Case, n: int, batch_sizes: list[int], **conventions) -> None:
    toys = toy(net.eval(), n, *case.shape, sites=[case.module])
    expected = {site: exact(toys, of_twin, **conventions) for site, of_twin in case.sites.items()}
    for batch_size in batch_sizes:
        matrices = found(toys, list(case.sites), batch_size, **conventions)
        assert list(matrices) == list(case.sites)
        for site in case.sites:
            assert_equal(matrices[site], expected[site], f"of {site} in batches of {batch_size}")


@pytest.mark.filterwarnings("ignore:Already found")
@pytest.mark.parametrize("kind", CASES)
def test_every_matrix_of_every_layer_type_equals_the_reference_at_every_batch_size(kind):
    """Called once or twice, positionally or by name, trained or frozen, its output edited in place or not."""

    @given(networks(CASES[kind]), st.integers(1, 3), st.sampled_from(["each", "sum"]), st.booleans())
    @settings(max_examples=40 if kind == "convolution" else 12)
    def checked(network, n, positions, frozen):
        net, case = network
        check(net.requires_grad_(not frozen), case, n, [1, 2, n + 1], positions=positions)

    checked()


WITH_POSITIONS = pytest.mark.parametrize("kind", ["convolution", "MultiheadAttention"])


@WITH_POSITIONS
@pytest.mark.parametrize("positions", ["each", "sum"])
def test_the_centred_agop_of_layers_with_positions_equals_the_reference(kind, positions):
    @given(networks(CASES[kind]))
    @settings(max_examples=4)
    def checked(network):
        check(*network, 3, [2], positions=positions, centre="jacobian")

    checked()


@WITH_POSITIONS
@pytest.mark.parametrize("positions", ["each", "sum"])
def test_examples_whose_patches_are_made_few_at_a_time_count_the_same(kind, positions, monkeypatch):
    monkeypatch.setattr(passes, "RECORD_BYTES", 1)

    @given(networks(CASES[kind]))
    @settings(max_examples=4)
    def checked(network):
        check(*network, 3, [2], positions=positions)

    checked()


@WITH_POSITIONS
def test_agop_along_random_directions_equals_the_reference_with_the_same_signs(kind):
    @given(networks(CASES[kind]))
    @settings(max_examples=5)
    def checked(network):
        net, case = network
        toys = toy(net.eval(), 3, *case.shape, sites=[case.module])
        options = Conventions(directions=Directions(3, seed=5))
        matrices = SiteMeasures(toys, list(case.sites), frozenset({"agop"}), options)(
            toys.net, toys.batches("train", batch_size=2)
        )
        drawn = torch.from_numpy(signs(torch.arange(3).numpy(), 3, toys.targets.shape[1], 5))
        for site, of_twin in case.sites.items():
            J = reference.jacobians(linear_twin(toys.net), of_twin, toys.inputs)
            estimate, expected = matrices[site]["agop"], reference.directional_agop(J, drawn)
            for core, one in zip(estimate.cores, expected, strict=True):
                W = estimate.factor
                torch.testing.assert_close(core if W is None else W.T @ core @ W, one, **CLOSE)

    checked()


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_every_site_of_a_transformer_layer_equals_the_reference(frozen, norm_first):
    """Whose fused kernel for inference would call none of them."""
    net = seeded(nn.TransformerEncoderLayer, 4, 2, 6, batch_first=True, norm_first=norm_first).eval()
    net = nn.Sequential(net, nn.Flatten(), seeded(nn.Linear, 12, 2)).requires_grad_(not frozen)
    names = ["0.self_attn", "0.linear1", "0.linear2", "2"]
    toys = toy(net, 3, 3, 4, sites=names)
    sites = [f"{names[0]}.{part}_proj" for part in ("q", "k", "v", "out")] + names[1:]
    matrices = found(toys, sites)
    for site in sites:
        assert_equal(matrices[site], exact(toys, site), f"of {site}")
    assert torch.backends.mha.get_fastpath_enabled()


def test_any_choice_of_matrices_and_sites_gives_the_same_values():
    net = nn.Sequential(seeded(Attention, "self", 4, 2, kdim=4, vdim=4, batch_first=True, bias=True), nn.Flatten())
    toys = toy(net, 3, 3, 4, sites=["0.attend"])
    sites = [f"0.attend.{part}_proj" for part in ("q", "k", "v", "out")]
    whole = found(toys, sites)
    for site in sites:
        for name in NAMES:
            alone = found(toys, [site], wanted=frozenset({name}))
            assert list(alone) == [site]
            assert list(alone[site]) == [name]
            torch.testing.assert_close(alone[site][name], whole[site][name], rtol=1e-12, atol=1e-14)


class Folded(nn.Module):
    """A layer that gets the positions of all examples, or pairs of them, as examples of their own."""

    def __init__(self, layer: nn.Module, fold: int) -> None:
        super().__init__()
        self.layer, self.fold = layer, fold

    def forward(self, inputs: Tensor) -> Tensor:
        folded = inputs.reshape(-1, self.fold, *inputs.shape[2:]) if self.fold else inputs.flatten(0, 1)
        return self.layer(folded).reshape(len(inputs), -1)


@pytest.mark.parametrize(
    ("layer", "fold"),
    [
        (nn.Linear(3, 2), 0),
        (nn.Conv1d(2, 3, 2), 2),
        (Attention("self", 3, 1, kdim=3, vdim=3, batch_first=True, bias=True), 2),
        (Attention("self", 3, 1, kdim=3, vdim=3, batch_first=False, bias=True), 2),
    ],
    ids=["Linear", "Conv1d", "MultiheadAttention", "MultiheadAttention, batch second"],
)
@pytest.mark.parametrize("positions", ["each", "sum"])
def test_parts_of_examples_in_the_place_of_examples_are_read_right(layer, fold, positions):
    attention = isinstance(layer, Attention)
    toys = toy(Folded(layer, fold), 3, 4, 3, sites=["layer.attend" if attention else "layer"])
    sites = [f"layer.attend.{part}_proj" for part in ("q", "k", "v", "out")] if attention else ["layer"]
    matrices = found(toys, sites, positions=positions)
    for site in sites:
        twin = f"{site}.linear" if isinstance(layer, nn.Conv1d) else site
        assert_equal(matrices[site], exact(toys, twin, positions), f"of {site}")
