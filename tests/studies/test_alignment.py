"""Alignment of measured matrices under every convention, against dense float64; undefined values are absent."""

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.measures.site_matrices import Conventions, SiteMeasures
from nfa.observe.directions import Directions
from nfa.observe.passes import site_weights
from nfa.registry.families.mlp.model import MLP, initialise
from nfa.relations import MATRICES, OF_ANY_MODEL, RELATIONS
from nfa.studies.alignment import LEVELS, AlignmentOptions, alignment, conventions
from tests.support.toy_models import Sequences, Toy, half_square, layers, seeded, site_matrices, toy


def of_kind(kind):
    """Matrices of such relations by name."""
    return {name: one.matrices for name, one in RELATIONS.items() if one.kind == kind}


VALUES = AlignmentOptions(chance=False)
TOP_2 = AlignmentOptions(top_k=2, chance=False)


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
        options=AlignmentOptions(centre=entry, agop_power=agop_power, chance=False),
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
    scalars = alignment(measured(toys, site_weights(toys, toys.net, ["0", "2"])), options=VALUES).scalars
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
    assert set(alignment(matrices, ["agop_nfm_init_removed"], VALUES).scalars) == {"0/agop_nfm_init_removed"}


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
    values = [alignment(measured(*mlp_in(dtype)), options=VALUES).scalars for dtype in (torch.float32, torch.float64)]
    assert len(values[0]) == 6
    assert values[0] == pytest.approx(values[1], abs=1e-5)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_bfloat16_similarities_are_within_5e_4_of_float32_but_not_the_same(activation):
    """Over 1,024 examples: rounding switches single relus on and off, which 64 examples do not average out (9e-4)."""
    toys, initial = mlp_in(torch.float32, n=1024, activation=activation)
    passes = [measured(toys, initial, batch_size=256, precision=precision) for precision in ("float32", "bfloat16")]
    values = [alignment(matrices, options=VALUES).scalars for matrices in passes]
    assert len(values[1]) == 6
    assert values[1] == pytest.approx(values[0], abs=5e-4)
    assert values[1] != pytest.approx(values[0], abs=1e-7)


def test_the_value_does_not_depend_on_the_batch_size():
    toys, initial = mlp_in(torch.float32)
    batches = (toys.batches("train", batch_size=size) for size in (7, 64))
    values = [alignment(site_matrices(toys.net, toys, part, initial), options=VALUES).scalars for part in batches]
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def all_matrices(toys: Toy, initial: dict[str, Tensor], **conventions: object) -> dict:
    measures = SiteMeasures(toys, toys.sites_named, frozenset(MATRICES), Conventions(**conventions), initial)
    return measures(toys.net, toys.batches("train", batch_size=4))


def exact_matrices(toys: Toy, site: str, initial: Tensor, positions: str, power: float) -> dict[str, Tensor]:
    W = toys.net.get_submodule(site).weight.detach()
    h, z = (read(toys.net, site, toys.inputs) for read in (reference.site_inputs, reference.site_outputs))
    delta = reference.loss_gradients(toys.net, site, toys.inputs, toys.targets, half_square)
    g, J = -delta @ W, reference.jacobians(toys.net, site, toys.inputs)
    pairs = {"g": (g, g), "h": (h, h), "fact": (g, h), "out_g": (delta, delta), "out_h": (z, z)}
    moments = {name: reference.second_moment(*pair, positions=positions) for name, pair in pairs.items()}
    return moments | {
        "fact": (moments["fact"] + moments["fact"].T) / 2,
        "agop": reference.agop(J, positions=positions, power=power),
        "nfm": reference.nfm(W),
        "nfm_init_removed": reference.nfm_init_removed(W, initial),
        "out_m": reference.nfm(W.T),
    }


def exact_relation(name: str, matrices: dict[str, Tensor], centre: str, k: int) -> float | None:
    """By the reference; None where that says it is undefined."""
    parts = [matrices[matrix] for matrix in RELATIONS[name].matrices]
    try:
        if name in of_kind("cosine"):
            return reference.cosine(*parts, centre=centre)
        if name in of_kind("overlap"):
            return reference.subspace_overlap(*parts, k)
        if name in of_kind("exponent"):
            return reference.exponent(parts[1], parts[0])[0]
        return reference.stable_rank(*parts)
    except ValueError:
        return None


def assert_every_relation(
    toys: Toy, *, positions: str = "each", centre: str = "none", power: float = 1, k: int, close: float = 1e-6
) -> None:
    initial = site_weights(toys, toys.net, toys.sites_named)
    moved(toys.net)
    options = AlignmentOptions(centre, power, k, chance=False)
    found = dict(alignment(all_matrices(toys, initial, positions=positions), OF_ANY_MODEL, options).scalars)
    for site in toys.sites_named:
        matrices = exact_matrices(toys, site, initial[site], positions, power)
        for name in OF_ANY_MODEL:
            found.pop(f"{site}/{name}_se", None)
            value = exact_relation(name, matrices, centre, k)
            assert found.pop(f"{site}/{name}", None) == (value if value is None else pytest.approx(value, abs=close))
    assert found == {}


@given(
    st.lists(st.integers(2, 10), min_size=3, max_size=4),
    st.integers(3, 8),
    st.integers(1, 4),
    st.sampled_from(["none", "entry"]),
)
@settings(max_examples=12)
def test_every_relation_of_any_chain_equals_the_reference_and_undefined_ones_are_absent(sizes, n, k, centre):
    names = [str(2 * index) for index in range(len(sizes) - 1)]
    toys = toy(seeded(layers, *sizes), n, sizes[0], sites=names)
    assert_every_relation(toys, centre=centre, k=k)


@pytest.mark.parametrize("positions", ["each", "sum"])
@pytest.mark.parametrize("power", [1, 0.5])
def test_every_relation_of_sites_with_positions_equals_the_reference(positions, power):
    """The square root of AGOP stands for it in every relation."""
    toys = toy(seeded(Sequences, 6, 8, 5), 12, 3, 6, sites=["first", "second"])
    assert_every_relation(toys, positions=positions, power=power, k=2)


def test_the_exponents_standard_error_equals_the_reference():
    toys = toy(seeded(layers, 6, 8, 7), 12, 6, sites=["0"])
    initial = site_weights(toys, toys.net, ["0"])
    scalars = alignment(all_matrices(toys, initial), ["agop_nfm_exponent"], VALUES).scalars
    matrices = exact_matrices(toys, "0", initial["0"], "each", 1)
    slope, error = reference.exponent(matrices["nfm"], matrices["agop"])
    assert scalars == pytest.approx({"0/agop_nfm_exponent": slope, "0/agop_nfm_exponent_se": error}, rel=1e-6)
    assert error > 1e-3


@pytest.mark.parametrize("layer", range(3))
def test_the_exponent_of_a_balanced_linear_network_is_one_over_the_matrices_that_follow(layer):
    """W_j = Q_{j+1} D Q_jᵀ for every j: then AGOP = (WᵀW)^(L−i), so NFM = AGOP^(1/(L−i)). No inputs matter."""
    net = seeded(layers, 5, 5, 5, 5, activation=nn.Identity, bias=False).double()
    diagonal = torch.diag(torch.tensor([0.5, 0.8, 1.0, 1.5, 2.0], dtype=torch.float64))
    random = torch.randn(4, 5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    bases = [torch.linalg.qr(matrix).Q for matrix in random]
    with torch.no_grad():
        for index in range(3):
            net[2 * index].weight.copy_(bases[index + 1] @ diagonal @ bases[index].T)
    site = str(2 * layer)
    toys = toy(net, 4, 5, sites=[site])
    matrices = all_matrices(toys, site_weights(toys, net, [site]))
    found = alignment(matrices, ["agop_nfm_exponent"], VALUES).scalars
    assert found == pytest.approx(
        {f"{site}/agop_nfm_exponent": 1 / (3 - layer), f"{site}/agop_nfm_exponent_se": 0}, abs=1e-7
    )


def test_before_the_first_update_only_what_needs_a_change_of_weights_is_absent():
    toys = toy(seeded(layers, 6, 8, 7), 12, 6, sites=["0"])
    scalars = alignment(all_matrices(toys, site_weights(toys, toys.net, ["0"])), OF_ANY_MODEL, TOP_2).scalars
    absent = {name for name in OF_ANY_MODEL if f"0/{name}" not in scalars}
    assert absent == {name for name in OF_ANY_MODEL if "nfm_init_removed" in RELATIONS[name].matrices}


def test_where_no_output_moves_every_relation_of_agop_is_absent_and_no_other():
    """A readout of zeros; g is zero as well, and so is FACT."""
    toys = toy(seeded(layers, 6, 8, 7), 12, 6, sites=["0"])
    initial = {"0": torch.zeros(8, 6, dtype=torch.float64)}
    with torch.no_grad():
        toys.net[2].weight.zero_()
    scalars = alignment(all_matrices(toys, initial), OF_ANY_MODEL, TOP_2).scalars
    zero = {"agop", "g", "fact", "out_g"}
    assert {key.removeprefix("0/") for key in scalars} == {
        name for name in OF_ANY_MODEL if not zero & set(RELATIONS[name].matrices)
    }


def test_estimates_give_cosines_with_a_standard_error_and_exact_matrices_the_rest():
    toys = toy(seeded(layers, 6, 8, 7), 12, 6, sites=["0"])
    initial = site_weights(toys, toys.net, ["0"])
    moved(toys.net)
    relations = [name for name in OF_ANY_MODEL if not RELATIONS[name].needs_all_outputs]
    exact = alignment(all_matrices(toys, initial), relations, TOP_2).scalars
    estimated = all_matrices(toys, initial, directions=Directions(2, 1))
    scalars = alignment(estimated, relations, TOP_2).scalars
    estimates = {f"0/{name}" for name in of_kind("cosine") if "agop" in of_kind("cosine")[name]}
    assert len(estimates) == 2
    assert set(scalars) == {f"0/{name}" for name in relations} | {f"{key}_se" for key in estimates}
    for key, value in exact.items():
        assert scalars[key] == pytest.approx(value, abs=6 * scalars[f"{key}_se"] if key in estimates else 1e-12)
        assert key not in estimates or scalars[key] != value


@pytest.mark.parametrize("name", [*of_kind("exponent"), "agop_nfm_overlap", "agop_stable_rank"])
def test_what_needs_every_direction_is_no_number_from_a_few(name):
    toys = toy(seeded(layers, 6, 8, 7), 12, 6, sites=["0"])
    estimated = all_matrices(toys, site_weights(toys, toys.net, ["0"]), directions=Directions(2))
    with pytest.raises(ValueError, match="needs AGOP from all directions"):
        alignment(estimated, [name], TOP_2)
    with pytest.raises(ValueError, match="needs AGOP from all directions"):
        alignment(estimated, ["agop_nfm"], AlignmentOptions(agop_power=0.5))


def test_stable_ranks_and_overlaps_lie_between_their_bounds():
    toys = toy(seeded(layers, 6, 8, 7), 12, 6, sites=["0"])
    initial = site_weights(toys, toys.net, ["0"])
    moved(toys.net)
    scalars = alignment(all_matrices(toys, initial), OF_ANY_MODEL, TOP_2).scalars
    assert all(1 <= scalars[f"0/{name}"] <= 8 for name in of_kind("stable rank"))
    assert all(0 <= scalars[f"0/{name}"] <= 1 for name in of_kind("overlap"))


def test_conventions_say_everything_that_other_programs_define_differently():
    assert conventions(Conventions(), AlignmentOptions()) == {
        "centre": "none",
        "agop_power": 1,
        "positions": "each",
        "precision": "float32",
        "directions": "all",
        "top_k": 10,
        "exponent_cutoff": 1e-6,
        "norms": "as measured",
        **LEVELS,
    }
    measured = Conventions(positions="sum", directions=Directions(2, seed=7), precision="bfloat16")
    assert conventions(measured, AlignmentOptions("entry", 1, 3, chance=False, unbiased=True)) == {
        "centre": "entry",
        "agop_power": 1,
        "positions": "sum",
        "precision": "bfloat16",
        "directions": "2 random, seed 7",
        "top_k": 3,
        "exponent_cutoff": 1e-6,
        "norms": "unbiased",
    }
    assert conventions(Conventions(centre="jacobian"), AlignmentOptions(agop_power=0.5))["centre"] == "jacobian"
