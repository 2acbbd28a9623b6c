"""What stands beside each relation of a site: errors, chance levels and shared-weights levels, relation by relation."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nfa import reference
from nfa.levels import SUFFIXES
from nfa.maths import standard_errors
from nfa.maths.congruence import Congruence
from nfa.maths.standard_errors import Matrix, Sampling, mean_of
from nfa.parallel import World
from nfa.relations import OF_ANY_MODEL, RELATIONS
from nfa.studies.site_alignment import AlignmentOptions, SiteAlignment, Values
from tests.measures.test_measures_of_processes import together
from tests.support.measured_sites import Site, compared, measured, of_examples, site
from tests.support.rotations import gaussian, spiked, uniform

SAMPLING = Sampling(40, 200)
COSINES = [name for name in OF_ANY_MODEL if RELATIONS[name].kind == "cosine"]
SHARED = [name for name in OF_ANY_MODEL if RELATIONS[name].shares_weights]
SHAPES = {
    "fewer outputs": {"o": 5, "i": 8},
    "as many": {"o": 6, "i": 6},
    "fewer inputs": {"o": 8, "i": 5},
    "deficient": {"o": 6, "i": 8, "rank": 4},
    "deficient, fewer inputs": {"o": 8, "i": 6, "rank": 4},
}


@pytest.fixture
def few_are_enough(monkeypatch):
    monkeypatch.setattr(standard_errors, "MOST_OF_IT", 2)


def values_of(
    matrices: dict[str, Matrix], sampling: Sampling | None = None, names: Any = OF_ANY_MODEL, **options: Any
) -> dict[str, Values]:
    study = SiteAlignment(matrices, AlignmentOptions(**{"top_k": 2, **options}), sampling=sampling)
    return {name: study.relation(name) for name in names}


def turned(made: Site, matrices: dict[str, Tensor], name: str, of: Any, draws: int) -> Tensor:
    """The relation over rotations of what stands between the same weights, by the reference."""
    random, W, (a, b) = torch.Generator().manual_seed(1), made.W, RELATIONS[name].matrices
    if a == "fact":
        P = torch.einsum("nso,nsi->oi", made.delta, made.h) / len(made.h)
        return reference.shared_fact(W, P, draws, random, of=of)
    if a == "out_h":
        return reference.shared_out_h_vs_m(W, matrices["h"], draws, random, of=of)

    def compare(A: Tensor, _: Tensor) -> float:
        return of(A, matrices[b])

    if W.shape[1] < W.shape[0]:
        return reference.shared_nfm_within_range(W, matrices[a], draws, random, of=compare)
    S = matrices["between_agop"] if a == "agop" else matrices["out_g"]
    return reference.shared_nfm(W, S, draws, random, of=compare)


def means_of(made: Site, positions: str = "each", centre: str = "none") -> dict[str, Tensor]:
    found = {name: each.mean(dim=0) for name, each in of_examples(made, positions, centre).items()}
    K = made.K.sum(dim=1, keepdim=True) if positions == "sum" else made.K
    K = K - K.mean(dim=(0, 1)) if centre == "jacobian" else K
    return found | {"between_agop": torch.einsum("nska,nskb->ab", K, K) / len(K)}


def assert_level(found: Values, suffix: str, values: Tensor, close: float = 0.01, *, spread: bool = True) -> None:
    """The mean within `close` and 4 Monte-Carlo errors, of both sides where 200 rotations made the level."""
    values = values[values.isfinite()]
    sd = float(values.std())
    error = sd * (1 / len(values) + 1 / 200) ** 0.5
    assert abs(found[suffix] - float(values.mean())) <= close + 4 * error
    assert not spread or abs(found[f"{suffix}_sd"] - sd) <= 0.3 * sd + 0.05


def assert_levels(made: Site, draws: int, *, positions: str = "each", centre: str = "none", power: float = 1) -> None:
    entry, jacobian = ("entry" if centre == "entry" else "none"), ("jacobian" if centre == "jacobian" else "none")
    matrices = measured(made, positions=positions, centre=jacobian)
    means = means_of(made, positions, jacobian)
    found = values_of(matrices, centre=entry, agop_power=power)
    for name, values in found.items():
        relation, of = RELATIONS[name], compared(name, centre=entry, power=power)
        if relation.kind == "stable rank":
            assert set(values) == {""}
            continue
        pair = [means[part] for part in relation.matrices]
        pair = [reference.square_root(pair[0]), pair[1]] if power == 0.5 and relation.matrices[0] == "agop" else pair
        assert values[""] == pytest.approx(of(means[relation.matrices[0]], pair[1]), abs=1e-6)
        if relation.kind != "exponent":
            k_or_cosine = reference.rotated(
                *pair,
                compared(name, centre=entry, k=2),
                draws,
                torch.Generator().manual_seed(0),
            )
            assert_level(values, "_chance", k_or_cosine)
        if name in SHARED:
            rotations = turned(made, means, name, of, draws)
            assert_level(values, "_shared", rotations, 0.02, spread=relation.kind != "exponent")  # of heavy tails
        else:
            assert "_shared" not in values


@pytest.mark.parametrize("shape", SHAPES)
def test_levels_of_every_relation_are_those_of_rotations(shape):
    assert_levels(site(**SHAPES[shape]), 60)


@pytest.mark.parametrize(
    "conventions",
    [
        {"positions": "each"},
        {"positions": "sum"},
        {"positions": "each", "centre": "jacobian"},
        {"centre": "entry"},
        {"power": 0.5},
    ],
    ids=str,
)
def test_levels_under_every_convention_are_those_of_rotations(conventions):
    assert_levels(site(5, 7, s=3), 60, **conventions)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "conventions", [{}, {"positions": "sum"}, {"centre": "jacobian"}, {"centre": "entry"}, {"power": 0.5}], ids=str
)
def test_levels_of_random_sites_are_those_of_rotations(seed, conventions):
    x = uniform(4, seed=seed).tolist()
    o, i = 3 + int(20 * x[0]), 3 + int(20 * x[1])
    rank = 2 + int(x[2] * min(o, i)) if seed % 3 == 0 else 0
    assert_levels(site(o, i, s=1 + seed % 3, rank=min(rank, o, i), seed=seed), 600, **conventions)


# ---- the table of levels, relation by relation


def test_only_relations_with_weights_on_both_sides_have_a_shared_level():
    found = values_of(measured(site(5, 8)))
    assert {name for name, values in found.items() if "_shared" in values} == set(SHARED)
    assert not {"g_vs_h", "h_vs_m", "out_g_vs_h", "out_g_vs_m", "g_vs_h_overlap"} & set(SHARED)
    assert {"agop_nfm", "agop_nfm_init_removed", "g_vs_m", "out_h_vs_m", "fact_nfm"} < set(SHARED)


@pytest.mark.parametrize("shape", ["fewer outputs", "fewer inputs"])
def test_a_bias_takes_the_shared_level_of_outputs_away_and_no_other(shape):
    with_bias, without = (values_of(measured(site(**SHAPES[shape], bias=bias))) for bias in (True, False))
    lost = {name for name in without if "_shared" in without[name] and "_shared" not in with_bias[name]}
    assert lost == {"out_h_vs_m", "out_h_vs_m_overlap"}


def test_fact_is_at_zero_by_shared_weights_with_a_spread():
    values = values_of(measured(site(5, 8)))["fact_nfm"]
    assert values["_shared"] == 0
    assert values["_shared_sd"] > 0.01


def test_exponents_have_no_chance_level_and_stable_ranks_none_at_all():
    found = values_of(measured(site(5, 8)))
    assert "_chance" not in found["agop_nfm_exponent"]
    assert "_shared" in found["agop_nfm_exponent"]
    assert set(found["agop_stable_rank"]) == {""}


def test_wide_weights_have_no_levels_that_need_every_rotation():
    found = values_of(measured(site(70, 80, n=10)), names=["agop_nfm", "agop_nfm_overlap", "agop_nfm_exponent"])
    assert "_shared" in found["agop_nfm"]
    assert "_shared" not in found["agop_nfm_overlap"]
    assert "_chance" in found["agop_nfm_overlap"]
    assert "_shared" not in found["agop_nfm_exponent"]


def test_a_flat_spectrum_has_the_closed_form_and_a_spike_another_level():
    made = site(40, 300, n=30)
    spike = Site(spiked(40, 300, 3) / 2, *list(vars(made).values())[1:])
    flat, other = (values_of(measured(one), names=["agop_nfm", "g_vs_m"]) for one in (made, spike))
    for name in flat:
        assert_level(flat[name], "_shared", turned(made, means_of(made), name, compared(name), 100))
        assert other[name]["_shared"] > flat[name]["_shared"] + 0.1


def test_agop_that_is_aligned_beyond_the_weights_is_above_their_level():
    """AGOP = Wᵀ C² W for C = W Wᵀ, where what stands between is not random."""
    W = gaussian(12, 20) * torch.linspace(0.3, 2, 12, dtype=torch.float64)[:, None]
    C = W @ W.T
    matrices = {"nfm": Congruence(W, None), "agop": Congruence(W, C @ C)}
    aligned = values_of(matrices, names=["agop_nfm"])["agop_nfm"]
    assert aligned[""] > aligned["_shared"] + 2 * aligned["_shared_sd"]
    Q = reference.rotation(12, torch.Generator().manual_seed(0))
    by_chance = values_of({**matrices, "agop": Congruence(W, Q @ C @ C @ Q.T)}, names=["agop_nfm"])["agop_nfm"]
    assert abs(by_chance[""] - by_chance["_shared"]) < 2 * by_chance["_shared_sd"]


# ---- errors


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("positions", ["each", "sum"])
@pytest.mark.parametrize("centre", ["none", "entry", "jacobian"])
def test_errors_of_every_cosine_are_those_of_the_reference(positions, centre):
    """The mean Jacobian of a centred AGOP counts as known."""
    made, jacobian = site(5, 7, s=2), "jacobian" if centre == "jacobian" else "none"
    each = of_examples(made, positions, jacobian)
    entry = "entry" if centre == "entry" else "none"
    found = values_of(measured(made, positions=positions, centre=jacobian), SAMPLING, COSINES, centre=entry)
    for name, values in found.items():
        error, unbiased = by_reference(name, each, entry)
        assert values["_se"] == pytest.approx(error, rel=1e-5)
        assert values["_unbiased"] == pytest.approx(unbiased, rel=1e-9)


def by_reference(name: str, each: dict[str, Tensor], centre: Any) -> tuple[float, float]:
    parts = [each[part] for part in RELATIONS[name].matrices]
    if centre == "entry":
        parts = [part - part.mean(dim=(1, 2), keepdim=True) for part in parts]
    moves = [not torch.equal(part[0], part[1]) for part in parts]

    def of(*means: Tensor) -> float:
        rest = iter(means)
        return reference.cosine(*(next(rest) if moving else part[0] for moving, part in zip(moves, parts, strict=True)))

    t = reference.influences(of, *(part for moving, part in zip(moves, parts, strict=True) if moving))
    return reference.standard_error(t, 200), reference.unbiased_cosine(*parts, 200)


@pytest.mark.usefixtures("few_are_enough")
def test_examples_of_different_lengths_have_the_same_errors_as_padded_ones():
    long, short = site(5, 7, n=20, s=3), site(5, 7, n=20, s=1, seed=50)
    padded = short.padded(2)
    both = Site(long.W, long.initial, *(torch.cat(pair) for pair in zip(records(long), records(padded), strict=True)))
    values, each = values_of(measured(both), SAMPLING, COSINES), of_examples(both)
    for name in COSINES:
        assert values[name]["_se"] == pytest.approx(by_reference(name, each, "none")[0], rel=1e-5)


def records(made: Site) -> list[Tensor]:
    return [made.h, made.z, made.delta, made.K]


@pytest.mark.usefixtures("few_are_enough")
def test_where_everything_was_measured_there_is_no_error():
    for values in values_of(measured(site(5, 7)), Sampling(40, 40), COSINES).values():
        assert set(values) & {"_se", "_unbiased"} == set()
        assert "_chance" in values


@pytest.mark.usefixtures("few_are_enough")
def test_one_example_has_values_and_levels_but_no_errors():
    for values in values_of(measured(site(5, 7, n=1)), Sampling(1, 200), COSINES).values():
        assert "_se" not in values
        assert {"", "_chance"} <= set(values)


def test_where_a_few_examples_decide_values_and_levels_remain():
    made = site(5, 7)
    made.h[3] *= 100
    values = values_of(measured(made), SAMPLING, ["h_vs_m"])["h_vs_m"]
    assert set(values) == {"", "_chance", "_chance_sd"}


@pytest.mark.usefixtures("few_are_enough")
def test_the_unbiased_value_is_the_value_where_that_is_asked_for():
    matrices = measured(site(5, 7))
    plain, unbiased = (values_of(matrices, SAMPLING, ["g_vs_h"], unbiased=u)["g_vs_h"] for u in (False, True))
    assert unbiased[""] == plain["_unbiased"]
    assert unbiased[""] != plain[""]
    assert "_unbiased" not in unbiased


@pytest.mark.usefixtures("few_are_enough")
def test_levels_can_be_left_out():
    for name, values in values_of(measured(site(5, 7)), chance=False).items():
        assert set(values) <= {"", "_se"}, name
        assert "_se" not in values or RELATIONS[name].kind == "exponent"


# ---- random directions


def random_signs(n: int, R: int) -> Tensor:
    return 2.0 * (uniform(n, R, 3, seed=9) > 0.5).double() - 1


@pytest.mark.usefixtures("few_are_enough")
def test_random_directions_have_errors_and_nearly_the_levels_of_all_outputs():
    made = site(5, 8, n=400)
    exact = values_of(measured(made, keep=512), Sampling(400, 1600), ["agop_nfm", "agop_nfm_init_removed"])
    estimated = measured(made, keep=512, signs=random_signs(400, 4))
    found = values_of(estimated, Sampling(400, 1600), list(exact))
    for name, values in found.items():
        assert set(values) == {"", *SUFFIXES}
        assert values["_se"] > exact[name]["_se"]
        assert abs(values[""] - exact[name][""]) < 4 * values["_se"]
        for suffix in ("_chance", "_chance_sd", "_shared", "_shared_sd"):
            assert values[suffix] == pytest.approx(exact[name][suffix], abs=0.03)


def test_random_directions_of_all_examples_have_the_error_of_directions():
    made = site(5, 8)
    values = values_of(measured(made, signs=random_signs(40, 3)), Sampling(40, 40), ["agop_nfm"])["agop_nfm"]
    assert values["_se"] > 0
    assert values.get("_unbiased") is None


# ---- whatever the shape and the numbers


def all_finite(found: dict[str, Values]) -> bool:
    return all(math.isfinite(value) for values in found.values() for value in values.values())


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize(("centre", "power"), [("none", 1), ("entry", 1), ("none", 0.5)])
@pytest.mark.parametrize(("o", "i"), [(1, 6), (6, 1), (1, 1), (2, 2)])
def test_tiny_sites_have_what_is_defined_and_nothing_else(o, i, centre, power):
    """A site of one input or output has no rotations on that side."""
    found = values_of(measured(site(o, i)), SAMPLING, centre=centre, agop_power=power, top_k=1)
    assert all_finite(found)
    if min(o, i) == 1:
        assert "_shared" not in found["agop_nfm"]
        assert "_shared" not in found["g_vs_m_overlap"]
    for name, values in found.items():
        size = o if name.startswith("out_") else i
        assert ("_chance" not in values) or size > 1


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("shape", ["fewer outputs", "deficient, fewer inputs"])
@pytest.mark.parametrize("entry", [0.0, math.nan, 1e30])
@pytest.mark.parametrize("spoilt", ["W", "h", "z", "delta", "K"])
def test_what_is_zero_or_not_finite_is_absent_and_stops_nothing(shape, entry, spoilt):
    """In float32, where the squares of 1e30 are no numbers."""
    made = site(**SHAPES[shape]).to(torch.float32)
    part = getattr(made, spoilt)
    part.mul_(0).add_(entry) if entry in (0.0, 1e30) else part[-1, -1].fill_(entry)
    found = values_of(measured(made), SAMPLING)
    assert all_finite(found)
    touched = {"W": "nfm", "h": "h", "z": "out_h", "delta": "g", "K": "agop"}[spoilt]
    if entry != 1e30:
        assert not any(found[name] for name in COSINES if touched in RELATIONS[name].matrices)


@pytest.mark.parametrize("shape", ["fewer outputs", "fewer inputs"])
@pytest.mark.parametrize("scale", [1e20, 1e-25])
def test_weights_whose_squares_are_no_float32_numbers_stop_nothing(shape, scale):
    """Exponents and overlaps are computed in float64 and exist there."""
    made = site(**SHAPES[shape]).to(torch.float32)
    found = values_of(measured(replace(made, W=scale * made.W, K=made.K / scale)), SAMPLING)
    assert all_finite(found)
    assert (shape, scale) != ("fewer outputs", 1e20) or "" in found["agop_nfm_exponent"]


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("shape", ["fewer outputs", "deficient, fewer inputs"])
def test_float32_is_close_to_float64(shape):
    made = site(**SHAPES[shape])
    exact, single = (values_of(measured(made.to(dtype)), SAMPLING) for dtype in (torch.float64, torch.float32))
    for name, values in exact.items():
        close = {"": 1e-4, "_se": 1e-4, "_unbiased": 1e-4, "_chance": 1e-4, "_chance_sd": 1e-4}  # others are drawn anew
        for suffix, value in values.items():
            assert single[name][suffix] == pytest.approx(value, rel=1e-3, abs=close.get(suffix, 0.03)), name + suffix


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("directions", [0, 3])
def test_several_processes_have_together_what_one_has(processes, directions):
    made = site(5, 8, s=2)
    signs = random_signs(40, directions) if directions else None
    names = ["agop_nfm", *COSINES] if not directions else ["agop_nfm", "agop_nfm_init_removed"]
    expected = values_of(measured(made, signs=signs), SAMPLING, names)

    def of(world: World) -> dict[str, Values]:
        mine = torch.tensor(world.shard(list(range(40))))
        part = None if signs is None else signs[mine]
        return values_of(measured(made.of(mine), world=world, signs=part), SAMPLING, names)

    for found in together(processes, of):
        for name, values in expected.items():
            assert found[name] == pytest.approx(values, rel=1e-9), name


def test_storing_examples_changes_no_bit_of_a_matrix():
    made = site(5, 8, s=2)
    with_examples, without = (measured(made, keep=keep) for keep in (256, 0))
    for name, matrix in without.items():
        assert torch.equal(mean_of(with_examples[name]).dense(), mean_of(matrix).dense())


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("options", [{}, {"centre": "entry"}, {"agop_power": 0.5}], ids=str)
def test_nothing_is_edited_no_generator_moves_and_the_same_comes_every_time(options):
    matrices = measured(site(8, 5))
    before = {name: mean_of(matrix).dense().clone() for name, matrix in matrices.items()}
    state = torch.get_rng_state()
    found = values_of(matrices, SAMPLING, **options)
    assert torch.equal(torch.get_rng_state(), state)
    for name, matrix in matrices.items():
        assert torch.equal(mean_of(matrix).dense(), before[name])
    assert values_of(matrices, SAMPLING, **options) == found


def test_levels_of_a_relation_do_not_depend_on_which_others_are_computed():
    matrices = measured(site(5, 8))
    every = values_of(matrices, SAMPLING)
    for name in ("g_vs_m", "fact_nfm", "agop_nfm_overlap", "out_h_vs_m"):
        assert values_of(matrices, SAMPLING, [name])[name] == pytest.approx(every[name], rel=1e-12)
