"""AGOP from random output directions: the reference's with the same signs, unbiased, and honest about its error."""

import math

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.maths.congruence import Congruence
from nfa.maths.replicates import Estimate, Replicates
from nfa.maths.similarity import Similarity
from nfa.measures import first_examples
from nfa.measures.agop_estimate import AgopEstimate
from nfa.measures.nfm import nfm
from nfa.observe.directions import Directions, signs
from nfa.observe.passes import observe, site_weights
from nfa.reference.linear_twin import linear_twin
from tests.support.toy_models import Sequences, Tied, Toy, half_square, layers, seeded, tensors_in, toy

CLOSE = {"rtol": 1e-9, "atol": 1e-12}  # float64 on both sides


def estimated(toys: Toy, directions: Directions, *, batch_size: int = 4, positions: str = "each") -> dict:
    """Each site's measure after one pass."""
    weights = site_weights(toys, toys.net, list(toys.sites_named))
    estimates = {name: AgopEstimate(weight, directions.count, positions=positions) for name, weight in weights.items()}
    listeners = {name: lambda _, estimate=estimate: [estimate] for name, estimate in estimates.items()}
    observe(toys.net, toys, toys.batches("train", batch_size=batch_size), listeners, directions=directions)
    return estimates


def exact_jacobian(toys: Toy, site: str, positions: str = "each") -> Tensor:
    """J [n s k i] by the reference, of the site in the network's linear twin."""
    twin = linear_twin(toys.net)
    of_twin = site if isinstance(twin.get_submodule(site), nn.Linear) else f"{site}.linear"
    J = reference.jacobians(twin, of_twin, toys.inputs)
    return J.sum(dim=1, keepdim=True) if positions == "sum" else J


def dense(found: Replicates) -> Tensor:
    """A_r [R i i]."""
    return torch.stack([Congruence(found.factor, core).dense() for core in found.cores])


def drawn(directions: Directions, J: Tensor) -> Tensor:
    return torch.from_numpy(signs(torch.arange(len(J)).numpy(), directions.count, J.shape[2], directions.seed))


def assert_equal_to_reference(toys: Toy, batch_sizes: list[int], positions: str, directions: Directions) -> None:
    weights = site_weights(toys, toys.net, list(toys.sites_named))
    jacobians = {name: exact_jacobian(toys, name, positions) for name in weights}
    for batch_size in batch_sizes:
        estimates = estimated(toys, directions, batch_size=batch_size, positions=positions)
        for name, J in jacobians.items():
            assert_is(estimates[name].value(), reference.directional_agop(J, drawn(directions, J)), weights[name])


def assert_is(found: Replicates, A: Tensor, weight: Tensor) -> None:
    torch.testing.assert_close(dense(found), A, **CLOSE)
    torch.testing.assert_close(found.mean.dense(), A.mean(dim=0), **CLOSE)
    for centre in ("none", "entry"):
        of_mean = centre == "entry"
        moved = [m - of_mean * m.mean(dim=(-2, -1), keepdim=True) for m in (A, reference.nfm(weight))]
        value = found.cosine(nfm(weight), Similarity(centre))
        try:
            expected = reference.debiased_cosine(*moved)
        except ValueError:
            assert value is None
        else:
            assert value.value == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(
    st.lists(st.integers(2, 12), min_size=3, max_size=4),
    st.integers(1, 6),
    st.integers(2, 4),
    st.integers(1, 7),
    st.integers(0, 99),
)
@settings(max_examples=10)
def test_any_chain_of_linear_maps_equals_the_reference_at_every_batch_size(sizes, n, count, batch_size, seed):
    names = [str(2 * index) for index in range(len(sizes) - 1)]
    toys = toy(seeded(layers, *sizes), n, sizes[0], sites=names)
    assert_equal_to_reference(toys, [batch_size], "each", Directions(count, seed))


NETS = {
    "i < o": lambda: toy(seeded(layers, 3, 14, 5), 7, 3, sites=["0", "2"]),
    "i > o": lambda: toy(seeded(layers, 14, 3, 5), 7, 14, sites=["0", "2"]),
    "positions, i < o": lambda: toy(seeded(Sequences, 3, 12, 4), 7, 4, 3, sites=["first", "second", "readout"]),
    "positions, i > o": lambda: toy(seeded(Sequences, 12, 3, 4), 7, 4, 12, sites=["first", "second"]),
    "called twice": lambda: toy(seeded(Tied, 5, 6, 4), 7, 3, 5, sites=["shared"]),
    "Conv1d": lambda: toy(convolutional(nn.Conv1d, 2, 6, 4, 3), 7, 2, 6, sites=["0"]),
    "Conv2d": lambda: toy(convolutional(nn.Conv2d, 2, 12, 4, 4), 7, 2, 4, 3, sites=["0"]),
}


def convolutional(kind: type[nn.Module], channels: int, out: int, positions: int, classes: int) -> nn.Module:
    kernel = 3 if kind is nn.Conv1d else (3, 2)
    head = seeded(nn.Linear, out * positions, classes)
    return nn.Sequential(seeded(kind, channels, out, kernel), nn.Tanh(), nn.Flatten(), head)


@pytest.mark.parametrize("positions", ["each", "sum"])
@pytest.mark.parametrize("case", NETS)
def test_every_layer_type_and_side_equals_the_reference(case, positions):
    assert_equal_to_reference(NETS[case](), [1, 3, 7, 100], positions, Directions(3, seed=11))


def test_both_sides_are_accumulated():
    assert estimated(NETS["i < o"](), Directions(2))["0"].value().factor is None
    assert estimated(NETS["i > o"](), Directions(2))["0"].value().factor is not None


def wide(n: int, sizes: tuple[int, ...] = (12, 10, 10)) -> Toy:
    """Many outputs, and weights away from their start: the cosine is neither 0 nor 1."""
    net = seeded(layers, *sizes)
    with torch.no_grad():
        net[0].weight.mul_(torch.linspace(0.2, 3, sizes[0]))
    return toy(net, n, sizes[0], sites=["0"])


def sequences(n: int) -> Toy:
    return toy(seeded(Sequences, 8, 6, 10), n, 3, 8, sites=["first"])


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: wide(8), marks=pytest.mark.slow, id="output side"),
        pytest.param(lambda: wide(8, (8, 40, 20)), marks=pytest.mark.slow, id="input side"),
        pytest.param(lambda: sequences(8), id="positions"),
    ],
)
def test_mean_and_debiased_norm_are_unbiased_and_the_norm_of_one_estimate_is_not(build):
    """Over 300 seeds, within four standard errors; ‖A_r‖² is larger by more than six of them."""
    toys = build()
    exact, found = exact_agop(toys), replicates_of(toys, 2, 300)
    assert_mean(torch.stack([replicates.mean.dense() for replicates in found]), exact, within=4)
    debiased = torch.tensor([replicates.squared_norm(Similarity()) for replicates in found], dtype=torch.float64)
    assert_mean(debiased, exact.square().sum(), within=4)
    biased = torch.stack([dense(replicates).square().sum(dim=(1, 2)).mean() for replicates in found])
    assert float(biased.mean() - exact.square().sum()) > 6 * standard_error(biased)


def standard_error(values: Tensor) -> Tensor:
    return values.std(dim=0) / math.sqrt(len(values))


def assert_mean(values: Tensor, expected: Tensor, *, within: float) -> None:
    error = (values.mean(dim=0) - expected).abs()
    assert (error <= within * standard_error(values) + 1e-12 * expected.abs().max()).all()


def replicates_of(toys: Toy, count: int, seeds: int) -> list[Replicates]:
    name, n = toys.sites_named[0], len(toys.inputs)
    return [estimated(toys, Directions(count, seed), batch_size=n)[name].value() for seed in range(seeds)]


def exact_agop(toys: Toy) -> Tensor:
    """Of the first site."""
    return reference.agop(exact_jacobian(toys, toys.sites_named[0]))


def weight_of(toys: Toy) -> Tensor:
    weight: Tensor = toys.net.get_submodule(toys.sites_named[0]).weight.detach()
    return weight


def estimates_of(toys: Toy, found: list[Replicates], centre: str = "none") -> list[Estimate]:
    return [replicates.cosine(nfm(weight_of(toys)), Similarity(centre)) for replicates in found]


@pytest.mark.parametrize("sizes", [(30, 24, 20), (10, 60, 20)], ids=["output side", "input side"])
def test_the_debiased_cosine_is_hardly_biased_where_that_of_one_direction_is(sizes):
    """64 examples, 200 seeds: mean error below a fifth of the one-direction cosine's."""
    toys = wide(64, sizes)
    found, M = replicates_of(toys, 2, 200), reference.nfm(weight_of(toys))
    exact, estimates = reference.cosine(exact_agop(toys), M), estimates_of(toys, found)
    single = [reference.cosine(dense(replicates)[0], M) for replicates in found]
    bias = sum(estimate.value for estimate in estimates) / len(estimates) - exact
    naive = sum(single) / len(single) - exact
    assert naive < -0.02
    assert abs(bias) < 0.2 * abs(naive)


def error_and_said(toys: Toy, found: list[Replicates], agop: Tensor, centre: str = "none") -> tuple[float, float]:
    """Root mean squares, over the seeds, of the error against the exact cosine and of the standard error given."""
    exact = reference.cosine(agop, reference.nfm(weight_of(toys)), centre=centre)
    estimates = estimates_of(toys, found, centre)
    squares = [((estimate.value - exact) ** 2, estimate.se**2) for estimate in estimates]
    error, said = (math.sqrt(sum(column) / len(found)) for column in zip(*squares, strict=True))
    return error, said


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: wide(64), 2),
        (lambda: wide(120), 4),
        (lambda: wide(64, (10, 60, 20)), 2),
        (lambda: sequences(64), 2),
    ],
    ids=["64 examples", "120 examples, four directions", "input side", "positions"],
)
def test_the_standard_error_is_the_size_of_the_error(build, count):
    """On the same examples, over 120 seeds: ratio within 0.7 to 1.4."""
    toys = build()
    found, agop = replicates_of(toys, count, 120), exact_agop(toys)
    for centre in ("none", "entry"):
        error, said = error_and_said(toys, found, agop, centre)
        assert 1e-4 < said < 0.2
        assert 0.7 < error / said < 1.4


def test_near_one_with_one_dominant_direction_the_standard_error_is_understated_by_less_than_twice():
    """A cosine of 0.98, a stable rank below 1.2: the linear term, which is what is estimated, all but vanishes."""
    toys = wide(100, (4, 16, 10))
    agop = exact_agop(toys)
    assert reference.stable_rank(agop) < 1.2
    error, said = error_and_said(toys, replicates_of(toys, 2, 120), agop)
    assert error / said < 2


def test_a_cosine_near_one_scatters_above_it_and_is_not_clipped():
    """At a readout K = 1, so AGOP is NFM and the cosine 1."""
    toys = toy(seeded(layers, 6, 5), 20, 6, sites=["0"])
    assert reference.cosine(exact_agop(toys), reference.nfm(weight_of(toys))) == pytest.approx(1, abs=1e-12)
    values = [estimate.value for estimate in estimates_of(toys, replicates_of(toys, 2, 40))]
    assert max(values) > 1.005
    assert min(values) < 0.999


def test_a_network_whose_outputs_do_not_move_has_no_cosine():
    toys = wide(8)
    with torch.no_grad():
        toys.net[2].weight.zero_()
    found = estimated(toys, Directions(2))["0"].value()
    assert not found.mean.dense().any()
    assert found.cosine(nfm(toys.net[0].weight.detach()), Similarity()) is None


def test_few_examples_can_leave_nothing_but_noise():
    """Two outputs of one example at a readout: directions with v·v′ = 0 have ⟨A₁, A₂⟩ = 0, others have not."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False))
    nn.init.eye_(net[0].weight)
    toys = toy(net, 1, 2, sites=["0"])
    weight = toys.net[0].weight.detach()
    for seed in range(12):
        found = estimated(toys, Directions(2, seed))["0"].value()
        v, w = signs(torch.arange(1).numpy(), 2, 2, seed)[0].astype(int)
        assert (found.cosine(nfm(weight), Similarity()) is None) == (v @ w == 0)


def test_one_direction_is_refused():
    with pytest.raises(ValueError, match="one estimate has a biased norm"):
        estimated(wide(5), Directions(1))["0"].value()


def test_estimates_of_no_examples_are_refused():
    with pytest.raises(ValueError, match="no examples"):
        AgopEstimate(torch.ones(2, 3), 2).value()


@pytest.mark.parametrize("shape", [(3, 20, 4), (20, 3, 4)], ids=["input side", "output side"])
def test_beyond_the_sample_nothing_that_is_kept_grows_with_the_number_of_examples(shape):
    def stored(n: int) -> list[tuple[int, ...]]:
        toys = toy(seeded(layers, *shape), n, shape[0], sites=["0"])
        return [tuple(tensor.shape) for tensor in tensors_in(estimated(toys, Directions(2), batch_size=50)["0"])]

    few, many = stored(600), stored(900)
    assert few == many
    kept = sum(size[0] for size in many if len(size) == 3)
    assert kept == 2 * first_examples.MOST


@pytest.mark.parametrize(("affordable", "kept"), [(10**9, 512), (100, 100), (1, 32)])
def test_the_sample_is_bounded_in_bytes_but_never_below_32_examples(monkeypatch, affordable, kept):
    """The first examples, whatever the batches; two estimates of three positions of three features in float64 each."""
    monkeypatch.setattr(first_examples, "BYTES", affordable * 2 * 3 * 3 * 8)
    toys = toy(seeded(Sequences, 12, 3, 4), 600, 3, 12, sites=["first"])
    small, large = (estimated(toys, Directions(2), batch_size=size)["first"].value().sample for size in (7, 600))
    assert small.shape == (kept, 2, 3, 3)
    torch.testing.assert_close(small, large, rtol=1e-12, atol=1e-15)


def test_float32_estimates_are_within_1e_5_of_float64():
    double = wide(64)
    single = Toy(wide(64).net.float(), double.inputs.float(), double.targets.float(), ["0"], half_square)
    values = [
        estimated(toys, Directions(2, 1))["0"].value().cosine(nfm(toys.net[0].weight.detach()), Similarity())
        for toys in (single, double)
    ]
    assert values[0].value == pytest.approx(values[1].value, abs=1e-5)
    assert values[0].se == pytest.approx(values[1].se, rel=1e-3)
