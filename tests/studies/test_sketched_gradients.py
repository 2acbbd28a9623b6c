"""The study of gradient directions on sketched Gram matrices: what stays unbiased, and the errors of every series."""

import math

import pytest
import torch
from torch import Tensor

from nfa.maths.example_gradients import Dense
from nfa.maths.gradient_sketch import Projection, paired_differences
from nfa.maths.gram import noise, participation_ratio
from nfa.studies import gradient_directions as studies
from nfa.studies.gradient_directions import ProbeExamples, gradient_directions

N, PARAMETERS, ROWS, COLUMNS = 24, 16, 3, 12
CLASSES = torch.arange(N) % 3
SKETCHES = 120
DRAWN = ("mean_cosine", "within_class_cosine", "silhouette", "effective_rank", "mean_gradient_squared")
OTHERS = ("gradient_variance", "noise_scale", "between_class_cosine")


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients() -> list[Tensor]:
    """Of each parameter [n, o·i]: a mean, one of the class, and each example's own."""
    means = (normal(1, ROWS * COLUMNS, seed=place) / 2 for place in range(PARAMETERS))
    return [
        mean + normal(3, ROWS * COLUMNS, seed=place + 100)[CLASSES] / 2 + normal(N, ROWS * COLUMNS, seed=place + 200)
        for place, mean in enumerate(means)
    ]


def exact() -> Tensor:
    return sum(one @ one.T for one in gradients())


def sketched(seed: int, vectors: int) -> tuple[Tensor, Tensor]:
    """K and its shifts."""
    gram, shifts = torch.zeros(N, N, dtype=torch.float64), []
    for place, gamma in enumerate(gradients()):
        one = Projection.drawn((ROWS, COLUMNS), vectors, of_rows=False, seed=seed, purpose=str(place))
        made = one([Dense(gamma)])
        products = one.products(made, made)
        gram, shifts = gram + products.sum(dim=0), [*shifts, paired_differences(products).sum(dim=0)]
    return gram, torch.stack(shifts)


def study(gram: Tensor, shifts: Tensor | None = None, size: int = 1) -> dict[str, float]:
    probe = ProbeExamples(normal(N, seed=1), CLASSES, None, size)
    found = gradient_directions(gram, probe, seed=0, chance=False, shifts=shifts).scalars
    return {name.removeprefix("gradient/"): value for name, value in found.items()}


@pytest.fixture
def few_draws(monkeypatch):
    """So that what is tested is the error of the sketch, and not that of the bootstrap."""
    monkeypatch.setattr(studies, "DRAWS", 8)
    monkeypatch.setattr(studies.gram_maths, "standard_errors", lambda draws: dict.fromkeys(draws, 0.0))
    monkeypatch.setattr(studies, "SIGNIFICANT", -math.inf)


@pytest.mark.slow
@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("size", [1, 4])
def test_errors_of_a_sketch_are_the_spread_of_every_series_over_random_vectors(size):
    names = (*DRAWN, *OTHERS) if size == 1 else ("mean_cosine", "effective_rank", "mean_gradient_squared")
    found = [study(*sketched(seed, 8), size) for seed in range(SKETCHES)]
    for name in names:
        values = torch.tensor([one[name] for one in found])
        stated = torch.tensor([one[f"{name}_se"] for one in found]).square().mean().sqrt()
        assert float(stated / values.std()) == pytest.approx(1, abs=0.3), name


def test_series_are_unbiased_and_the_rank_is_corrected_for_the_errors_in_its_squares():
    strata, ones = torch.zeros(N, dtype=torch.long), torch.ones(1, N, dtype=torch.float64)
    made = [sketched(seed, 2) for seed in range(SKETCHES)]
    truth = float(participation_ratio(exact(), ones, strata))
    found = torch.cat([participation_ratio(gram, ones, strata, shifts) for gram, shifts in made])
    naive = torch.cat([participation_ratio(gram, ones, strata) for gram, _ in made])
    assert abs(float(found.mean()) - truth) < 4 * float(found.std()) / math.sqrt(SKETCHES)
    assert float(naive.mean()) < truth - 8 * float(naive.std()) / math.sqrt(SKETCHES)
    parts = zip(*(noise(gram, ones, CLASSES) for gram, _ in made), strict=True)
    for of_exact, of_made in zip(noise(exact(), ones, CLASSES), parts, strict=True):
        values = torch.cat(of_made)
        assert abs(float(values.mean() - of_exact)) < 4 * float(values.std()) / math.sqrt(SKETCHES)


def test_standard_errors_combine_the_bootstrap_and_the_sketch():
    gram, shifts = sketched(0, 4)
    alone, both = study(gram), study(gram, shifts)
    for name in ("mean_cosine", "mean_gradient_squared", "silhouette"):
        assert both[name] == alone[name]
        assert both[f"{name}_se"] > alone[f"{name}_se"]
    up, down = (study(gram + sign * shifts.sum(dim=0)) for sign in (1, -1))
    one = study(gram, shifts.sum(dim=0, keepdim=True))
    expected = math.hypot(alone["mean_cosine_se"], (up["mean_cosine"] - down["mean_cosine"]) / 2)
    assert one["mean_cosine_se"] == pytest.approx(expected, rel=1e-12)


def test_an_exact_matrix_has_no_error_of_a_sketch_and_shifts_of_zero_change_nothing():
    plain, moved = study(exact()), study(exact(), torch.zeros(4, N, N))
    assert "sketch_error" not in plain
    assert moved.pop("sketch_error") == 0
    assert moved == pytest.approx(plain, rel=1e-12)


def test_a_rank_of_which_errors_leave_nothing_is_absent():
    gram = torch.eye(N, dtype=torch.float64)
    found = study(gram, 3 * gram[None])
    assert "effective_rank" not in found
    assert "effective_rank_se" not in found
