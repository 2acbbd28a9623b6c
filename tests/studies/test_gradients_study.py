"""The study of gradient directions: values by the reference, what it leaves out, what moves it and what does not."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from nfa import reference
from nfa.studies.direction_series import SERIES, WITH_CHANCE
from nfa.studies.gradient_directions import DRAWS, ProbeExamples, gradient_directions
from nfa.studies.result import Result

N = 36
CLASSES = torch.arange(N) % 3
NOISY = torch.arange(N) % 5 == 0
OF_MEAN = {"noise_scale", "mean_gradient_squared", "gradient_variance"}  # of all examples, also where units are batches
PARTS = {"mean_cosine", "effective_rank"} | OF_MEAN
OF_CLASSES = {"within_class_cosine", "between_class_cosine", "silhouette"}
OF_NOISE = {"label_noise_auc", "label_noise_auc_of_loss"}
BESIDE = ("_se", "_chance", "_chance_sd")
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
    """By name, without standard errors and chance levels."""
    return {key.removeprefix("gradient/"): v for key, v in result.scalars.items() if not key.endswith(BESIDE)}


def levels(result: Result) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation by name."""
    names = [key.removesuffix("_chance") for key in result.scalars if key.endswith("_chance")]
    found = {name: (result.scalars[f"{name}_chance"], result.scalars[f"{name}_chance_sd"]) for name in names}
    assert 2 * len(found) == sum("_chance" in key for key in result.scalars)
    return {name.removeprefix("gradient/"): moments for name, moments in found.items()}


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
    assert {key for key in result.scalars if "_chance" not in key} == {
        f"gradient/{name}{end}" for name in SERIES for end in ("", "_se")
    } | {"gradient/zero_fraction"}
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


# ---- chance levels


def test_chance_levels_are_those_of_labels_that_are_permuted_among_the_examples_with_a_direction():
    """Some have no gradient, a class has one example, and some losses are the same."""
    rows, losses = gradients(), probe().losses.round()
    rows[[2, 30]] = 0
    classes = torch.where(torch.arange(N) == 4, 3, CLASSES)
    result = study(rows, probe(classes=classes, losses=losses))
    C, kept = reference.cosines(rows @ rows.T)
    own = [C[a, (classes[kept] == classes[kept][a]) & (torch.arange(len(kept)) != a)].mean() for a in range(len(kept))]
    known = [a for a in range(len(kept)) if own[a].isfinite()]
    scores = [-float(own[a]) for a in known]
    marks, of = NOISY[kept][known].int().tolist(), classes[kept].tolist()
    permuted = {
        "within_class_cosine": (lambda of: reference.mean_of_pairs(C.tolist(), of, same=True), of),
        "between_class_cosine": (lambda of: reference.mean_of_pairs(C.tolist(), of, same=False), of),
        "silhouette": (lambda of: reference.silhouette((1 - C).fill_diagonal_(0), torch.tensor(of)), of),
        "label_noise_auc": (lambda of: reference.area(scores, of), marks),
        "label_noise_auc_of_loss": (lambda of: reference.area(losses.tolist(), of), NOISY.int().tolist()),
    }
    found = levels(result)
    assert set(found) == {*permuted, "mean_cosine"} == set(WITH_CHANCE)
    for name, (statistic, labels) in permuted.items():
        mean, deviation = reference.over_permutations(statistic, labels, 500)
        assert found[name][0] == pytest.approx(mean, abs=deviation / 3), name  # five errors of 500 and 200 draws
        assert found[name][1] == pytest.approx(deviation, rel=0.25), name
    both = sum(marks) * (len(marks) - sum(marks))
    assert found["label_noise_auc"][1] == pytest.approx(math.sqrt((len(known) + 1) / (12 * both)))
    assert len(known) == N - 3
    assert found["mean_cosine"] == pytest.approx((0, math.sqrt(2 * (C.square().sum() - len(C))) / (34 * 33)))


def test_classes_that_are_there_are_far_above_chance_and_permuted_ones_are_not():
    order = torch.randperm(N, generator=torch.Generator().manual_seed(8))
    there, mixed = study(gradients()), study(gradients(), probe(classes=CLASSES[order]))
    for result, beyond in ((there, True), (mixed, False)):
        for name, sign in {"within_class_cosine": 1, "between_class_cosine": -1, "silhouette": 1}.items():
            mean, deviation = levels(result)[name]
            far = sign * (values(result)[name] - mean) / deviation
            assert far > 5 if beyond else abs(far) < 3, name


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        ({"classes": None}, {"mean_cosine"}),
        ({"batch_size": 4}, {"mean_cosine"}),
        ({"noisy": None}, {"mean_cosine"} | OF_CLASSES),
        ({"noisy": torch.ones(N, dtype=torch.bool)}, {"mean_cosine"} | OF_CLASSES),
        ({"classes": 0 * CLASSES}, {"mean_cosine"} | OF_NOISE),
        ({"classes": torch.arange(N)}, {"mean_cosine", "label_noise_auc_of_loss"}),
    ],
    ids=["no classes", "batches", "no wrong labels", "only wrong labels", "one class", "one example in each class"],
)
def test_where_permuting_changes_nothing_there_is_no_chance_level(of, expected):
    result = study(gradients(), probe(**of))
    assert set(levels(result)) == expected
    assert expected <= set(values(result))


def test_without_a_direction_there_is_no_chance_level_but_that_of_the_loss():
    assert set(levels(study(torch.zeros(N, 8, dtype=torch.float64)))) == {"label_noise_auc_of_loss"}
    one = torch.zeros(N, 8, dtype=torch.float64)
    one[5] = 1
    assert set(levels(study(one))) == {"label_noise_auc_of_loss"}


def test_chance_false_leaves_the_levels_out_and_nothing_else():
    rows = gradients()
    usual = study(rows)
    without = gradient_directions(rows @ rows.T, probe(), seed=1, chance=False)
    assert without.scalars == {key: value for key, value in usual.scalars.items() if "_chance" not in key}
    assert np.array_equal(without.arrays["draws"], usual.arrays["draws"])


def test_the_seed_changes_the_level_of_the_silhouette_and_no_closed_form():
    one, other = (levels(study(gradients(), seed=seed)) for seed in (1, 2))
    assert {name for name in one if one[name] != other[name]} == {"silhouette"}


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
    for key, value in before.scalars.items():  # the level of the silhouette is computed in float32
        close = CLOSE if "silhouette_chance" not in key else {"rel": 1e-4}
        assert rotated.scalars[key] == pytest.approx(value, **close), key
    assert rotated.scalars.keys() == before.scalars.keys()
    for key, value in before.scalars.items():
        square = 1e-12 if "squared" in key or "variance" in key else 1
        close = 1e-4 if "silhouette_chance" in key else 1e-9
        assert scaled.scalars[key] == pytest.approx(square * value, rel=close), key
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
