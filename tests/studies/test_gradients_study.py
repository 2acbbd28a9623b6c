"""The study of gradient directions: values by the reference, what it leaves out, what moves it and what does not."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from nfa import reference
from nfa.studies.direction_series import SERIES
from nfa.studies.gradient_directions import DRAWS, ProbeExamples, gradient_directions
from nfa.studies.result import Result

N = 36
CLASSES = torch.arange(N) % 3
NOISY = torch.arange(N) % 5 == 0
OF_MEAN = {"noise_scale", "mean_gradient_squared", "gradient_variance"}  # of all examples, also where units are batches
PARTS = {"mean_cosine", "effective_rank"} | OF_MEAN
OF_CLASSES = {"within_class_cosine", "between_class_cosine", "silhouette"}
OF_NOISE = {"label_noise_auc", "label_noise_auc_of_loss"}
CLOSE = {"rel": 1e-9, "abs": 1e-12}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(seed: int = 0, offset: float = 1.0) -> Tensor:
    """Of classes with means of their own; what they have in common is `offset`."""
    return normal(3, 8, seed=seed)[CLASSES] + normal(N, 8, seed=seed + 1) + offset


def probe(**options) -> ProbeExamples:
    return ProbeExamples(**{"losses": normal(N, seed=9), "classes": CLASSES, "noisy": NOISY, **options})


def study(rows: Tensor, of: ProbeExamples | None = None, seed: int = 1) -> Result:
    return gradient_directions(rows @ rows.T, of or probe(), seed=seed)


def values(result: Result) -> dict[str, float]:
    """By name, without standard errors."""
    return {key.removeprefix("gradient/"): v for key, v in result.scalars.items() if not key.endswith("_se")}


def draws(result: Result, name: str) -> np.ndarray:
    return result.arrays["draws"][SERIES.index(name)]


# ---- values


def test_every_value_is_that_of_the_reference():
    rows = gradients()
    found = values(study(rows))
    K = reference.gradient_gram(rows)
    C, _ = reference.cosines(K)
    same, off = CLASSES[:, None] == CLASSES, ~torch.eye(N, dtype=torch.bool)
    squared, variance = reference.noise_scale(rows, CLASSES)
    own = torch.stack([C[a, same[a] & off[a]].mean() for a in range(N)])
    assert found == pytest.approx(
        {
            "mean_cosine": float(C[off].mean()),
            "within_class_cosine": float(C[off & same].mean()),
            "between_class_cosine": float(C[~same].mean()),
            "silhouette": reference.silhouette((1 - C).fill_diagonal_(0), CLASSES),
            "effective_rank": reference.participation_ratio(K),
            "mean_gradient_squared": squared,
            "gradient_variance": variance,
            "noise_scale": variance / squared,
            "label_noise_auc": roc_auc_score(NOISY, -own),
            "label_noise_auc_of_loss": roc_auc_score(NOISY, probe().losses),
            "zero_fraction": 0.0,
        },
        rel=1e-10,
    )


def test_every_series_has_a_standard_error_beside_it_and_a_share_has_none():
    result = study(gradients())
    assert set(values(result)) == {*SERIES, "zero_fraction"} == PARTS | OF_CLASSES | OF_NOISE | {"zero_fraction"}
    assert set(result.scalars) == {f"gradient/{name}{end}" for name in SERIES for end in ("", "_se")} | {
        "gradient/zero_fraction"
    }
    assert all(type(value) is float and math.isfinite(value) for value in result.scalars.values())
    assert all(value > 0 for key, value in result.scalars.items() if key.endswith("_se"))


def test_arrays_are_cosines_norms_and_places_of_what_has_a_direction_and_draws_in_the_order_of_the_series():
    rows = gradients()
    rows[[2, 30]] = 0
    result = study(rows)
    kept = [place for place in range(N) if place not in (2, 30)]
    assert set(result.arrays) == {"cosines", "norms", "kept", "draws"}
    assert result.arrays["kept"].tolist() == kept
    np.testing.assert_allclose(result.arrays["norms"], rows[kept].norm(dim=1), rtol=1e-12)
    np.testing.assert_allclose(result.arrays["cosines"], reference.cosines(rows @ rows.T)[0], atol=1e-6)
    assert result.arrays["cosines"].dtype == np.float32
    assert result.arrays["draws"].shape == (len(SERIES), DRAWS)
    for name in SERIES:
        low, high = np.quantile(draws(result, name), [0.158655, 0.841345])
        assert result.scalars[f"gradient/{name}_se"] == pytest.approx((high - low) / 2, rel=1e-9), name
        assert low - 3 * (high - low) < values(result)[name] < high + 3 * (high - low), name


# ---- what is left out


def test_the_noise_scale_is_absent_where_the_mean_gradient_cannot_be_told_from_zero_and_its_parts_are_there():
    rows = gradients(offset=0.0)
    rows -= torch.stack([rows[c == CLASSES].mean(dim=0) for c in range(3)])[CLASSES]
    result = study(rows)
    assert set(values(result)) == {*SERIES, "zero_fraction"} - {"noise_scale"}
    assert "gradient/noise_scale_se" not in result.scalars
    assert values(result)["mean_gradient_squared"] < 2 * result.scalars["gradient/mean_gradient_squared_se"]


@pytest.mark.parametrize("above", [0.9, 1.1])
def test_it_is_there_from_two_standard_errors_on(above, monkeypatch):
    result = study(gradients())
    ratio = values(result)["mean_gradient_squared"] / result.scalars["gradient/mean_gradient_squared_se"]
    monkeypatch.setattr("nfa.studies.gradient_directions.SIGNIFICANT", ratio / above)
    assert ("noise_scale" in values(study(gradients()))) == (above > 1)
    assert ratio > 2


def test_without_classes_there_is_nothing_of_classes():
    found = study(gradients(), probe(classes=None))
    assert set(values(found)) == PARTS | {"zero_fraction"}
    squared, variance = reference.noise_scale(gradients())
    assert values(found)["noise_scale"] == pytest.approx(variance / squared, rel=1e-10)
    assert np.isnan(draws(found, "silhouette")).all()


@pytest.mark.parametrize("noisy", [None, torch.zeros(N, dtype=torch.bool), torch.ones(N, dtype=torch.bool)])
def test_wrong_labels_are_told_apart_only_where_there_are_both(noisy):
    found = study(gradients(), probe(noisy=noisy))
    assert set(values(found)) == PARTS | OF_CLASSES | {"zero_fraction"}
    assert np.isnan(draws(found, "label_noise_auc")).all()


@pytest.mark.parametrize(
    ("classes", "left_out"),
    [
        (0 * CLASSES, {"between_class_cosine", "silhouette"}),
        (torch.arange(N), {"within_class_cosine", "silhouette"} | OF_MEAN),
        (torch.where(torch.arange(N) == 4, 3, CLASSES), OF_MEAN),
    ],
    ids=["one class", "one example in each class", "one class of one example"],
)
def test_classes_that_allow_no_comparison_leave_out_what_needs_one(classes, left_out):
    found = values(study(gradients(), probe(classes=classes, noisy=None)))
    assert set(found) == (PARTS | OF_CLASSES | {"zero_fraction"}) - left_out


def test_classes_of_two_examples_have_a_noise_scale_with_an_error():
    classes = torch.arange(N) // 2
    found = study(normal(N // 2, 8)[classes] + normal(N, 8, seed=1) + 1, probe(classes=classes))
    assert {"gradient/noise_scale", "gradient/noise_scale_se"} <= set(found.scalars)


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_where_no_example_has_a_direction_nothing_is_said_of_directions(value):
    found = study(torch.full((N, 8), value, dtype=torch.float64))
    of_mean = OF_MEAN - {"noise_scale"} if value == 0 else set()
    assert set(values(found)) == {"zero_fraction", "label_noise_auc_of_loss"} | of_mean
    assert values(found)["zero_fraction"] == 1
    assert found.arrays["cosines"].shape == (0, 0)
    assert found.arrays["kept"].shape == (0,)


def test_zero_gradients_are_counted_left_out_of_cosines_and_part_of_the_noise():
    rows, zeros = gradients(), [0, 7, 8]
    rows[zeros] = 0
    rest = [place for place in range(N) if place not in zeros]
    others = probe(losses=probe().losses[rest], classes=CLASSES[rest], noisy=NOISY[rest])
    found, without = values(study(rows)), values(study(rows[rest], others))
    assert found["zero_fraction"] == 3 / N
    for name in ("mean_cosine", *OF_CLASSES, "label_noise_auc", "effective_rank"):
        assert found[name] == pytest.approx(without[name], rel=1e-10), name
    squared, variance = reference.noise_scale(rows, CLASSES)
    assert found["noise_scale"] == pytest.approx(variance / squared, rel=1e-10)
    assert found["noise_scale"] != pytest.approx(without["noise_scale"], rel=1e-2)


def test_one_gradient_that_is_not_finite_leaves_out_the_noise_and_itself():
    rows = gradients()
    rows[3, 2] = math.inf
    found = values(study(rows))
    assert set(found) == {"mean_cosine", *OF_CLASSES, *OF_NOISE, "zero_fraction"}
    assert found["zero_fraction"] == 1 / N


# ---- batches


@pytest.mark.parametrize("size", [4, 7])
def test_batches_are_the_study_of_their_mean_gradients_and_the_noise_is_that_of_the_examples(size):
    """36 examples: in batches of 7 one is left over, and part of the noise."""
    rows = gradients()
    found, single = study(rows, probe(batch_size=size)), study(rows)
    means = torch.stack([part.mean(dim=0) for part in rows.split(size) if len(part) == size])
    direct = study(means, ProbeExamples(torch.zeros(len(means))))
    assert set(values(found)) == PARTS | {"zero_fraction"}
    for name in values(found):
        expected = values(single if name in OF_MEAN else direct)[name]
        assert values(found)[name] == pytest.approx(expected, rel=1e-9), name
    for name in ("mean_cosine", "effective_rank"):
        np.testing.assert_allclose(draws(found, name), draws(direct, name), rtol=1e-9)
    for name in ("cosines", "norms", "kept"):
        np.testing.assert_allclose(found.arrays[name], direct.arrays[name], rtol=1e-5, atol=1e-6)


def test_examples_of_batches_are_drawn_within_their_classes():
    """Of gradients that are the same in a class, no draw has another mean."""
    rows = 5 * normal(3, 8)[CLASSES] + 0.01 * normal(N, 8, seed=1)
    error = study(rows, probe(batch_size=4)).scalars["gradient/mean_gradient_squared_se"]
    assert error < 0.02 * study(rows, probe(batch_size=4, classes=None)).scalars["gradient/mean_gradient_squared_se"]


@pytest.mark.parametrize(("n", "size"), [(36, 19), (36, 36), (36, 100), (1, 1)])
def test_one_gradient_is_none_to_compare(n, size):
    with pytest.raises(ValueError, match=f"{n} examples in batches of {size}: two or more are needed"):
        probe(losses=torch.zeros(n), batch_size=size)


# ---- what it depends on


def test_the_scale_of_all_gradients_and_their_rotation_change_no_direction_and_no_noise_scale():
    rows = gradients()
    before = study(rows)
    rotation = torch.linalg.qr(normal(8, 8, seed=3)).Q
    scaled, rotated = study(1e-6 * rows), study(rows @ rotation)
    assert rotated.scalars == pytest.approx(before.scalars, **CLOSE)
    for key, value in before.scalars.items():
        square = 1e-12 if "squared" in key or "variance" in key else 1
        assert scaled.scalars[key] == pytest.approx(square * value, rel=1e-9), key
    np.testing.assert_allclose(scaled.arrays["cosines"], before.arrays["cosines"], atol=1e-6)


def test_the_order_of_the_examples_and_names_of_classes_change_nothing_but_the_order_of_the_arrays():
    rows, order = gradients(), torch.randperm(N, generator=torch.Generator().manual_seed(4))
    rows[5] = 0
    mixed = probe(losses=probe().losses[order], classes=10 * CLASSES[order] - 7, noisy=NOISY[order])
    before, after = study(rows), study(rows[order], mixed)
    assert values(after) == pytest.approx(values(before), **CLOSE)
    for name in SERIES:  # other examples are drawn
        assert after.scalars[f"gradient/{name}_se"] == pytest.approx(before.scalars[f"gradient/{name}_se"], rel=0.3)
    assert after.arrays["kept"].tolist() == [place for place in range(N) if order[place] != 5]
    rank = {int(place): row for row, place in enumerate(before.arrays["kept"])}
    back = [rank[int(order[place])] for place in after.arrays["kept"]]
    np.testing.assert_allclose(after.arrays["cosines"], before.arrays["cosines"][np.ix_(back, back)], atol=1e-6)
    np.testing.assert_allclose(after.arrays["norms"], before.arrays["norms"][back])


def test_the_size_of_one_gradient_changes_the_noise_and_the_rank_and_no_cosine():
    rows = gradients()
    before = values(study(rows))
    rows[11] *= 4
    after = values(study(rows))
    for name in ("mean_cosine", *OF_CLASSES, *OF_NOISE):
        assert after[name] == pytest.approx(before[name], rel=1e-10)
    for name in (*OF_MEAN, "effective_rank"):
        assert after[name] != pytest.approx(before[name], rel=1e-2)


def test_the_same_seed_draws_the_same_and_nothing_global_is_touched():
    state = torch.random.get_rng_state()
    one, same, other = (study(gradients(), seed=seed) for seed in (1, 1, 2))
    assert one.scalars == same.scalars
    assert np.array_equal(one.arrays["draws"], same.arrays["draws"])
    assert values(one) == values(other)
    assert not np.array_equal(one.arrays["draws"], other.arrays["draws"])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("size", [1, 4])
def test_two_runs_with_the_same_classes_draw_the_same_examples_so_that_differences_are_paired(size):
    rows = gradients()
    one, alike = (study(of, probe(batch_size=size)) for of in (rows, rows + 0.02 * normal(N, 8, seed=6)))
    for name in ("mean_cosine", "mean_gradient_squared"):
        assert np.std(draws(one, name) - draws(alike, name)) < 0.1 * np.std(draws(one, name))
    other = study(rows + 0.02 * normal(N, 8, seed=6), probe(batch_size=size), seed=2)
    assert np.std(draws(one, "mean_cosine") - draws(other, "mean_cosine")) > np.std(draws(one, "mean_cosine"))


def test_nothing_that_is_given_is_edited():
    rows, given = gradients(), probe()
    K = (rows @ rows.T).float()
    before = [tensor.clone() for tensor in (K, *vars(given).values()) if isinstance(tensor, Tensor)]
    gradient_directions(K, given, seed=1)
    gradient_directions(K, dataclasses.replace(given, batch_size=4), seed=1)
    after = [tensor for tensor in (K, *vars(given).values()) if isinstance(tensor, Tensor)]
    assert all(torch.equal(*pair) for pair in zip(after, before, strict=True))
