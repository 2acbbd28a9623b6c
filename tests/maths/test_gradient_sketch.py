"""Sketches of gradients: every form of a gradient has the same sketch, unbiased and with the error that is stated."""

import math

import pytest
import torch
from torch import Tensor

from nfa import reference
from nfa.maths.example_gradients import Dense, GradientFactors, Part
from nfa.maths.gradient_sketch import Projection, cosine_changes, cosine_error, paired_differences
from nfa.maths.gram import cosines
from nfa.maths.lookup_gradients import Rows
from tests.support.grams import normal, tokens

N, ROWS, COLUMNS = 5, 6, 4
DRAWS = 2000
FAR = 5.0  # standard errors


def factors(seed: int = 0, positions: int = 3, groups: int = 1) -> GradientFactors:
    return GradientFactors(
        normal(N, positions, groups, ROWS // groups, seed=seed), normal(N, positions, groups, COLUMNS, seed=seed + 50)
    )


def parts(kind: str) -> list[Part]:
    rows = Rows(tokens(N, 3, below=ROWS), normal(N, 3, COLUMNS, seed=3), ROWS)
    found: dict[str, list[Part]] = {
        "one position": [factors(positions=1)],
        "positions": [factors()],
        "groups": [factors(groups=2)],
        "channels alone": [factors(groups=ROWS)],
        "looked up": [rows],
        "dense": [Dense(normal(N, ROWS * COLUMNS, seed=4))],
        "several uses": [factors(1), Dense(normal(N, ROWS * COLUMNS, seed=5)), factors(2, positions=2)],
        "looked up and multiplied": [rows, factors(6)],
        "factors of another shape": [GradientFactors(normal(N, 3, 1, 2), normal(N, 3, 1, 12, seed=1))],
    }
    return found[kind]


KINDS = (
    "one position", "positions", "groups", "channels alone", "looked up", "dense", "several uses",
    "looked up and multiplied", "factors of another shape",
)  # fmt: skip


def whole(kind: str) -> Tensor:
    return torch.stack([part.dense().values for part in parts(kind)]).sum(dim=0)


def drawn(vectors: int, of_rows: bool, seed: int = 0) -> Projection:
    return Projection.drawn((ROWS, COLUMNS), vectors, of_rows=of_rows, seed=seed, purpose="a test")


def by_vector(of: list[Part], sketch: Projection) -> Tensor:
    """What K is by each random vector alone [r, n, n]."""
    values = sketch(of).values.unflatten(1, (sketch.vectors.shape[1], -1))
    return torch.einsum("ark,brk->rab", values, values) * sketch.vectors.shape[1]


@pytest.mark.parametrize("of_rows", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sketch_in_any_form_is_the_kronecker_product_of_the_reference(kind, of_rows):
    sketch = drawn(6, of_rows)
    gamma, made = whole(kind).view(N, ROWS, COLUMNS), sketch(parts(kind))
    expected = reference.sketched_gram([gamma], [("rows" if of_rows else "columns", sketch.vectors)])
    found = sketch.products(made, made)
    assert len(found) == sketch.blocks == 6
    torch.testing.assert_close(found.sum(dim=0), expected, rtol=1e-12, atol=1e-12)


def spread(gamma: Tensor, of_rows: bool) -> Tensor:
    """The variance of ⟨γ_a u, γ_b u⟩ = uᵀMu: ‖M‖² + tr M² − 2 Σ M_jj², with M = γ_aᵀγ_b (or γ_aγ_bᵀ)."""
    m = torch.einsum("aoi,boj->abij" if not of_rows else "aio,bjo->abij", gamma, gamma)
    own = m.diagonal(dim1=2, dim2=3).square().sum(dim=2)
    return m.square().sum(dim=(2, 3)) + (m * m.mT).sum(dim=(2, 3)) - 2 * own


@pytest.mark.parametrize("of_rows", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_inner_products_and_norms_are_unbiased_with_the_variance_that_is_stated(kind, of_rows):
    found = by_vector(parts(kind), drawn(2 * DRAWS, of_rows)).unflatten(0, (DRAWS, 2)).mean(dim=1)
    gamma = whole(kind).view(N, ROWS, COLUMNS)
    exact = reference.gradient_gram(gamma.flatten(1))
    variance = spread(gamma, of_rows) / 2
    far = (found.mean(dim=0) - exact).abs() - FAR * (variance / DRAWS).sqrt()
    assert far.max() <= 1e-12
    shown = variance > 1e-12
    ratios = found.var(dim=0)[shown] / variance[shown]
    assert ratios.numel()
    assert (ratios - 1).abs().max() < 0.35
    assert abs(float(ratios.mean()) - 1) < 0.1


@pytest.mark.parametrize("vectors", [2, 8, 16])
def test_pairs_of_blocks_give_an_unbiased_estimate_of_the_variance(vectors):
    gamma = whole("positions").view(N, ROWS, COLUMNS)
    sketches = [drawn(vectors, False, seed) for seed in range(400)]
    made = [(sketch, sketch(parts("positions"))) for sketch in sketches]
    found = torch.stack([paired_differences(sketch.products(one, one)).square().sum(dim=0) for sketch, one in made])
    ratios = found.mean(dim=0) * vectors / spread(gamma, False)
    assert float(ratios.mean()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("vectors", [4, 16])
def test_the_standard_error_of_a_cosine_covers_the_exact_one(vectors):
    """Sixteen parameters, of which each adds an independent error."""
    many = [normal(N, 8, 30, seed=seed) + normal(N, 1, 1, seed=seed + 99) / 3 for seed in range(16)]
    exact = cosines(torch.stack([reference.gradient_gram(one.flatten(1)) for one in many]).sum(dim=0))[0]
    blocks = []  # of each parameter: two halves of every sketch [draws, 2, n, n]
    for place, gamma in enumerate(many):
        drawn_once = Projection.drawn((8, 30), 300 * vectors, of_rows=False, seed=0, purpose=str(place))
        of_one = by_vector([Dense(gamma.flatten(1))], drawn_once)
        blocks.append(of_one.unflatten(0, (300, 2, vectors // 2)).sum(dim=2) / vectors)
    apart, inside, errors = ~torch.eye(N, dtype=torch.bool), [], []
    for halves in torch.stack(blocks, dim=1):  # [parameters, 2, n, n]
        gram, shifts = halves.sum(dim=(0, 1)), halves[:, 0] - halves[:, 1]
        changes = cosine_changes(gram, shifts).square().sum(dim=0).sqrt()
        error = (cosines(gram)[0] - exact)[apart]
        inside.append((error.abs() <= 1.96 * changes[apart]).double().mean())
        errors.append((error.square().mean(), cosine_error(gram, shifts) ** 2))
    assert 0.91 < float(torch.stack(inside).mean()) < 0.97
    found, stated = (math.sqrt(sum(map(float, of)) / len(of)) for of in zip(*errors, strict=True))
    assert stated == pytest.approx(found, rel=0.1)


def test_a_gradient_of_zero_has_a_sketch_of_zero_and_no_error_where_there_is_one_direction():
    made = drawn(4, False)([Dense(torch.zeros(2, ROWS * COLUMNS))])
    assert not made.values.any()
    assert cosine_error(torch.zeros(2, 2), torch.zeros(4, 2, 2)) is None


def test_the_seed_and_the_purpose_draw_the_signs_and_nothing_else_does():
    torch.manual_seed(0)
    first = drawn(4, True)
    torch.manual_seed(1)
    assert torch.equal(first.vectors, drawn(4, True).vectors)
    other = Projection.drawn((ROWS, COLUMNS), 4, of_rows=True, seed=0, purpose="another")
    assert not torch.equal(first.vectors, drawn(4, True, seed=1).vectors)
    assert not torch.equal(first.vectors, other.vectors)
    assert first.vectors.abs().eq(1).all()
