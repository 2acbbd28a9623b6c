"""The numbers of `gradient_directions`: equal to the reference's of float64 gradients, one example at a time."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from nfa import reference
from nfa.registry import stored_runs
from tests.support.gradient_direction_runs import (
    BESIDE,
    MAIN,
    OF_CLASSES,
    SERIES,
    WITHOUT_ERROR,
    Trained,
    array,
    assert_same_matrix,
    batch_of,
    directed,
    directions_of,
    example_gradients,
    stored_gram,
)
from tests.support.stores import Finished, used

N = 40
OF_LABEL_NOISE = {"label_noise_auc", "label_noise_auc_of_loss"}


@pytest.fixture(scope="module")
def analysed(trained_runs: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Finished]]:
    """Analyses of all checkpoints, by the name of the run."""
    store = trained_runs.store.copy(tmp_path_factory.mktemp("analysed") / "store")
    with pytest.MonkeyPatch.context() as monkeypatch, used(store, monkeypatch):
        asked = {"n": N, "epochs": "all"}
        names = ("main", "dying", "noisy")
        yield {name: Finished(store, directed(store, run_id=trained_runs.ids[name], **asked)) for name in names}


def classes(made: Finished) -> torch.Tensor:
    return torch.tensor(made.store.json(made.run_id, "config.json")["classes"])


@pytest.mark.parametrize(("name", "epoch"), [("main", 0), ("main", 5), ("main", 20), ("dying", 0), ("dying", 5)])
def test_K_of_every_pair_of_examples_equals_the_reference(
    name: str, epoch: int, analysed: dict[str, Finished], trained_runs: Trained
) -> None:
    made = analysed[name]
    exact = reference.gradient_gram(example_gradients(trained_runs.ids[name], epoch, N))
    expected, kept = reference.cosines(exact)
    assert array(made.store, made.run_id, "kept", epoch).tolist() == kept
    assert_same_matrix(stored_gram(made.store, made.run_id, epoch), exact[kept][:, kept])
    assert_same_matrix(torch.tensor(array(made.store, made.run_id, "cosines", epoch)), expected)
    if name == "dying":
        assert 0 < len(kept) < N  # some gradients are zero, and are no part of it


@pytest.mark.parametrize(("name", "epoch"), [("main", 5), ("main", 20), ("dying", 0)])
def test_series_equal_the_reference(
    name: str, epoch: int, analysed: dict[str, Finished], trained_runs: Trained
) -> None:
    made = analysed[name]
    gradients, of = example_gradients(trained_runs.ids[name], epoch, N), classes(made)
    K = reference.gradient_gram(gradients)
    C, kept = reference.cosines(K)
    same, pairs = of[kept][:, None] == of[kept], ~torch.eye(len(kept), dtype=torch.bool)
    squared, variance = reference.noise_scale(gradients, of)
    expected = {
        "mean_cosine": C[pairs].mean(),
        "within_class_cosine": C[pairs & same].mean(),
        "between_class_cosine": C[~same].mean(),
        "silhouette": reference.silhouette(1 - C, of[kept]),
        "effective_rank": reference.participation_ratio(K),
        "noise_scale": variance / squared,
        "mean_gradient_squared": squared,
        "gradient_variance": variance,
        "zero_fraction": 1 - len(kept) / N,
    }
    logged = {series: of_epoch.get(epoch) for series, of_epoch in directions_of(made.store, made.run_id).items()}
    for series, value in expected.items():
        if series == "noise_scale" and logged.get("noise_scale") is None:
            assert not squared > 2 * logged["mean_gradient_squared_se"]
        else:
            assert logged[series] == pytest.approx(float(value), rel=1e-4, abs=1e-5), series


def test_where_the_mean_gradient_is_not_significant_the_noise_scale_is_absent(analysed: dict[str, Finished]) -> None:
    found = []
    for made in analysed.values():
        logged = directions_of(made.store, made.run_id)
        for epoch, squared in logged["mean_gradient_squared"].items():
            found.append(squared > 2 * logged["mean_gradient_squared_se"][epoch])
            assert (epoch in logged.get("noise_scale", {})) is found[-1]
    assert set(found) == {True, False}


@pytest.mark.parametrize("name", ["main", "dying"])
def test_correlation_with_the_checkpoint_before_is_of_the_pairs_that_both_have(
    name: str, analysed: dict[str, Finished]
) -> None:
    made = analysed[name]
    found = directions_of(made.store, made.run_id)["correlation_with_previous"]
    epochs = sorted(directions_of(made.store, made.run_id)["mean_cosine"])
    for before, epoch in pairwise(epochs):
        both = [dict_of_cosines(made, which) for which in (before, epoch)]
        pairs = sorted(both[0].keys() & both[1].keys())
        expected = np.corrcoef(*([of_one[pair] for pair in pairs] for of_one in both))[0, 1]
        assert found.pop(epoch) == pytest.approx(expected, abs=1e-6)
    assert found == {}


def dict_of_cosines(made: Finished, epoch: int) -> dict[tuple[int, int], float]:
    """By pair of places in the probe."""
    cosines, kept = (array(made.store, made.run_id, key, epoch) for key in ("cosines", "kept"))
    return {
        (int(a), int(b)): float(cosines[row, column])
        for row, a in enumerate(kept)
        for column, b in enumerate(kept)
        if row < column
    }


def test_stored_losses_are_the_plain_ones_in_the_order_of_the_probe(
    analysed: dict[str, Finished], trained_runs: Trained
) -> None:
    for epoch in MAIN:
        model, workload = stored_runs.load_checkpoint(trained_runs.ids["main"], epoch, device="cpu")
        batch = batch_of(trained_runs.ids["main"], N)
        with torch.no_grad():
            expected = workload.losses(workload.outputs(model, batch), batch)
        found = array(analysed["main"].store, analysed["main"].run_id, "losses", epoch)
        assert found == pytest.approx(expected.numpy(), rel=1e-5)


def test_errors_are_the_spread_of_the_stored_bootstrap(analysed: dict[str, Finished]) -> None:
    made = analysed["main"]
    logged, draws = directions_of(made.store, made.run_id), array(made.store, made.run_id, "draws", 5)
    for row, name in enumerate(["mean_cosine", "within_class_cosine", "between_class_cosine", "silhouette"]):
        low, high = np.quantile(draws[row], [0.158655, 0.841345])
        assert logged[f"{name}_se"][5] == pytest.approx((high - low) / 2)


# ---- wrong labels


def test_only_a_run_with_label_noise_has_its_series(analysed: dict[str, Finished]) -> None:
    for name, made in analysed.items():
        expected = SERIES | WITHOUT_ERROR | (OF_LABEL_NOISE if name == "noisy" else set())
        found = {key for key in directions_of(made.store, made.run_id) if not key.endswith(BESIDE)}
        assert found | {"noise_scale"} == expected
        numbers = made.store.json(made.run_id, "gradient_directions.json")
        assert set(numbers["series"]) == expected
        assert set(numbers["undefined"]) <= {"noise_scale", "correlation_with_previous"}
    assert OF_CLASSES < SERIES


def test_wrong_labels_are_marked_and_classes_are_those_trained_on(
    analysed: dict[str, Finished], trained_runs: Trained
) -> None:
    made, source = analysed["noisy"], trained_runs.ids["noisy"]
    ids, content = made.store.json(source, "example_ids.json"), made.store.json(made.run_id, "config.json")
    assert content["noisy"] == [example in ids["noisy"] for example in content["examples"]]
    assert 0 < sum(content["noisy"]) < N
    changed = dict(zip(ids["noisy"], ids["noisy_labels"], strict=True))
    for example, label in zip(content["examples"], content["classes"], strict=True):
        assert changed.get(example, label) == label
    assert content["noisy"] == made.store.json(made.run_id, "gradient_directions.json")["noisy"]


@pytest.mark.parametrize("epoch", [0, 5])
def test_how_well_they_are_told_apart_is_the_area_under_scikit_learn_s_curve(
    epoch: int, analysed: dict[str, Finished]
) -> None:
    made = analysed["noisy"]
    logged, of = directions_of(made.store, made.run_id), classes(made).numpy()
    noisy = np.array(made.store.json(made.run_id, "config.json")["noisy"])
    cosines, kept, losses = (array(made.store, made.run_id, key, epoch) for key in ("cosines", "kept", "losses"))
    same = (of[kept][:, None] == of[kept]) & ~np.eye(len(kept), dtype=bool)
    known = same.any(axis=1)
    own = (cosines * same).sum(axis=1)[known] / same.sum(axis=1)[known]
    by_cosine = roc_auc_score(noisy[kept][known], -own)
    assert logged["label_noise_auc"][epoch] == pytest.approx(by_cosine, abs=1e-3)  # one rank of float32 cosines
    assert logged["label_noise_auc_of_loss"][epoch] == pytest.approx(roc_auc_score(noisy, losses), abs=1e-6)
    assert logged["label_noise_auc_se"][epoch] > 0
