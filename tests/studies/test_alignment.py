"""Alignment of measured matrices under every convention, against dense float64; undefined values are absent."""

import pytest
import torch
import torch.nn as nn
from toys import Sequences, Toy, layers, seeded, site_matrices, toy

from nfa import reference
from nfa.measures.site_matrices import Conventions, site_weights
from nfa.models.mlp import MLP, initialise
from nfa.studies.alignment import AlignmentOptions, alignment, conventions


def moved(net: nn.Module, amount: float = 0.1) -> nn.Module:
    """`net` with every weight changed, as training would."""
    random = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(amount * torch.randn(weight.shape, generator=random, dtype=torch.float64).to(weight.dtype))
    return net


def measured(toys: Toy, initial, *, batch_size: int = 4, **conventions):
    return site_matrices(toys.net, toys, toys.batches("train", batch_size=batch_size), initial, **conventions)


@pytest.mark.parametrize("positions", ["each", "sum"])
@pytest.mark.parametrize("agop_power", [1, 0.5])
@pytest.mark.parametrize("centre", ["none", "entry", "jacobian"])
def test_every_convention_equals_the_reference(positions, agop_power, centre):
    toys = toy(seeded(Sequences, 4, 9, 2), 5, 3, 4, sites=["first", "second"])
    initial = site_weights(toys, toys.net, list(toys.sites_named))
    moved(toys.net)
    jacobian = "jacobian" if centre == "jacobian" else "none"
    entry = "entry" if centre == "entry" else "none"
    result = alignment(
        measured(toys, initial, positions=positions, centre=jacobian),
        options=AlignmentOptions(centre=entry, agop_power=agop_power),
    )
    for name in toys.sites_named:
        J, W = reference.jacobians(toys.net, name, toys.inputs), toys.net.get_submodule(name).weight.detach()
        agop = reference.agop(J, positions=positions, centre=jacobian, power=agop_power)
        tolerance = 1e-9 if agop_power == 1 else 1e-6
        assert result.scalars[f"{name}/agop_nfm"] == pytest.approx(
            reference.cosine(agop, reference.nfm(W), centre=entry), abs=tolerance
        )
        assert result.scalars[f"{name}/agop_nfm_init_removed"] == pytest.approx(
            reference.cosine(agop, reference.nfm_init_removed(W, initial[name]), centre=entry), abs=tolerance
        )
    said = conventions(Conventions(centre=jacobian, positions=positions), AlignmentOptions(entry, agop_power))
    expected = {"centre": centre, "agop_power": agop_power, "positions": positions, "directions": "all"}
    assert said.items() >= expected.items()


def test_what_is_undefined_is_absent_and_the_rest_is_there():
    """Before the first update W − W⁽⁰⁾ is zero: neither 0 nor NaN is logged."""
    toys = toy(seeded(layers, 4, 6, 2), 5, 4, sites=["0", "2"])
    scalars = alignment(measured(toys, site_weights(toys, toys.net, ["0", "2"]))).scalars
    assert set(scalars) == {"0/agop_nfm", "2/agop_nfm"}


def test_a_site_whose_outputs_do_not_move_has_no_alignment():
    """AGOP is zero where a dead layer follows."""
    toys = toy(seeded(layers, 4, 6, 2), 5, 4, sites=["0", "2"])
    initial = site_weights(toys, toys.net, ["0", "2"])
    with torch.no_grad():
        toys.net[2].weight.zero_()
    assert set(alignment(measured(toys, initial)).scalars) == set()


def test_only_the_relations_asked_for_are_computed():
    toys = toy(seeded(layers, 4, 6, 2), 5, 4, sites=["0"])
    initial = site_weights(toys, toys.net, ["0"])
    moved(toys.net)
    matrices = measured(toys, initial)
    assert set(alignment(matrices, relations=["agop_nfm_init_removed"]).scalars) == {"0/agop_nfm_init_removed"}


def test_the_measured_matrices_are_not_edited():
    toys = toy(seeded(layers, 4, 6, 2), 5, 4, sites=["0"])
    matrices = measured(toys, site_weights(toys, moved(toys.net), ["0"]))
    before = {name: matrix.dense().clone() for name, matrix in matrices["0"].items()}
    for centre in ("none", "entry"):
        for power in (1, 0.5):
            alignment(matrices, options=AlignmentOptions(centre=centre, agop_power=power))
    for name, matrix in matrices["0"].items():
        assert torch.equal(matrix.dense(), before[name])


def mlp_in(dtype: torch.dtype, *, n: int = 64, activation: str = "relu") -> tuple[Toy, dict]:
    net = MLP(96, 10, width=128, depth=3, activation=activation)
    initialise(net, "default", torch.Generator().manual_seed(1))
    toys = toy(net, n, 96, sites=[f"layers.{index}" for index in range(3)], dtype=dtype)
    initial = site_weights(toys, toys.net, list(toys.sites_named))
    moved(toys.net, 0.02)
    return toys, initial


def test_float32_similarities_are_within_1e_5_of_float64():
    values = [alignment(measured(*mlp_in(dtype))).scalars for dtype in (torch.float32, torch.float64)]
    assert len(values[0]) == 6
    assert values[0] == pytest.approx(values[1], abs=1e-5)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_bfloat16_similarities_are_within_5e_4_of_float32_but_not_the_same(activation):
    """Over 1,024 examples: rounding switches single relus on and off, which 64 examples do not average out (9e-4)."""
    toys, initial = mlp_in(torch.float32, n=1024, activation=activation)
    passes = [measured(toys, initial, batch_size=256, precision=precision) for precision in ("float32", "bfloat16")]
    values = [alignment(matrices).scalars for matrices in passes]
    assert len(values[1]) == 6
    assert values[1] == pytest.approx(values[0], abs=5e-4)
    assert values[1] != pytest.approx(values[0], abs=1e-7)


def test_the_value_does_not_depend_on_the_batch_size():
    toys, initial = mlp_in(torch.float32)
    batches = (toys.batches("train", batch_size=size) for size in (7, 64))
    values = [alignment(site_matrices(toys.net, toys, part, initial)).scalars for part in batches]
    assert values[0] == pytest.approx(values[1], abs=1e-6)
