"""What each option of `gradient_directions` changes, and what it leaves alone."""

import numpy as np
import pytest
import torch

from nfa import reference
from nfa.figures.gradient_series import LABELS
from nfa.registry import stored_runs, tracking
from nfa.registry.analyses import gradient_directions_report
from nfa.registry.families.mlp.ghm import bin_of
from tests.support.gradient_direction_runs import (
    BESIDE,
    MAIN,
    OF_CLASSES,
    Trained,
    array,
    assert_same_matrix,
    batch_of,
    directed,
    directions_of,
    example_gradients,
    shorten,
    stored_gram,
)

N = 30


def described(runs: Trained, run_id: str) -> dict[str, object]:
    found: dict[str, object] = runs.store.json(run_id, "config.json")
    return found


def test_batches_have_the_mean_gradient_of_their_consecutive_examples(
    runs: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    made = directed(runs.store, run_id=runs.ids["main"], n=45, unit="batch", batch_size=10, epochs="5", maps=True)
    gradients = example_gradients(runs.ids["main"], 5, 45)
    means = torch.stack([gradients[start : start + 10].mean(dim=0) for start in range(0, 40, 10)])
    assert_same_matrix(stored_gram(runs.store, made, 5), reference.gradient_gram(means))
    assert array(runs.store, made, "kept", 5).tolist() == [0, 1, 2, 3]
    assert array(runs.store, made, "map", 5).shape == (4, 2)
    conventions = described(runs, made)["conventions"]
    assert (conventions["unit"], conventions["perplexity"]) == ("batch of 10", 1.0)
    assert "5 examples left over from batches of 10" in capsys.readouterr().out
    drawn = gradient_directions_report.directions(made, tracking.history(made), described(runs, made))
    assert drawn[5].what == "batches of 10"


def test_the_noise_scale_is_of_examples_whatever_the_unit_and_batches_have_no_class(runs: Trained) -> None:
    of_batches, of_examples = (
        directions_of(runs.store, directed(runs.store, run_id=runs.ids["main"], n=40, epochs="5", **options))
        for options in ({"unit": "batch", "batch_size": 5}, {})
    )
    for name in ("noise_scale", "mean_gradient_squared", "gradient_variance"):
        assert of_batches[name] == of_examples[name]
    assert set(of_examples) - set(of_batches) == {f"{name}{end}" for name in OF_CLASSES for end in ("", *BESIDE)}
    assert of_batches["mean_cosine"] != of_examples["mean_cosine"]


def test_a_weighted_loss_has_the_weights_of_this_probe_and_the_plain_one_has_none(runs: Trained) -> None:
    """K_ab of the run's own loss is w_a w_b times that of the plain loss."""
    source = runs.ids["ghm"]
    own, plain = (directed(runs.store, run_id=source, n=N, epochs="5", loss=loss) for loss in ("run", "plain"))
    K = {made: stored_gram(runs.store, made, 5) for made in (own, plain)}
    model, workload = stored_runs.load_checkpoint(source, 5, device="cpu")
    batch = batch_of(source, N)
    outputs = workload.outputs(model, batch)
    w, _ = reference.ghm_c(outputs, batch.targets, bins=5, alpha=0.75)
    assert len(w.unique()) > 1
    assert_same_matrix(K[own], K[plain] * w[:, None] * w)
    histogram = workload.objective().histogram()
    histogram.update(outputs, batch)
    norms, _ = histogram.terms(outputs, batch.targets)
    assert histogram.weights[bin_of(norms, 5)] == pytest.approx(w)
    assert_same_matrix(K[plain], reference.gradient_gram(example_gradients(source, 5, N)))
    said = [described(runs, made)["conventions"]["loss"] for made in (own, plain)]
    assert said == ["cross-entropy, weights of ghm fixed over these examples", "cross-entropy"]
    assert np.array_equal(*(array(runs.store, made, "losses", 5) for made in (own, plain)))


def test_a_loss_without_weights_is_the_plain_one(runs: Trained) -> None:
    own, plain = (
        directed(runs.store, run_id=runs.ids["main"], n=20, epochs="5", loss=loss) for loss in ("run", "plain")
    )
    assert directions_of(runs.store, own) == directions_of(runs.store, plain)


@pytest.mark.parametrize(
    ("pattern", "layers"),
    [
        ("layer_1", [1]),
        ("layers.2.weight", [2]),
        ("layer_2, *0", [0, 2]),
    ],
)
def test_sites_choose_the_parameters_of_the_gradient(pattern: str, layers: list[int], runs: Trained) -> None:
    made = directed(runs.store, run_id=runs.ids["main"], n=20, epochs="20", sites=pattern)
    names = [f"layers.{layer}.weight" for layer in layers]
    assert described(runs, made)["parameters"] == names
    exact = reference.gradient_gram(example_gradients(runs.ids["main"], 20, 20, names))
    assert_same_matrix(stored_gram(runs.store, made, 20), exact)


@pytest.mark.parametrize(
    ("text", "expected"), [("20,0", [0, 20]), ("0-20/20", [0, 20]), ("all", [0, 5, 20]), ("5-60/5", MAIN)]
)
def test_epochs_are_those_typed_or_of_the_default_those_that_exist(
    text: str, expected: list[int], runs: Trained
) -> None:
    made = directed(runs.store, run_id=runs.ids["main"], n=10, epochs=text)
    assert sorted(directions_of(runs.store, made)["mean_cosine"]) == expected


def test_perplexity_changes_the_map_and_nothing_else(runs: Trained) -> None:
    options = {"run_id": runs.ids["main"], "n": N, "epochs": "5", "maps": True}
    usual, wide = (directed(runs.store, **options, **more) for more in ({}, {"perplexity": 20.0}))
    said = [described(runs, made)["conventions"]["perplexity"] for made in (usual, wide)]
    assert said == [(N - 1) / 3, 20]
    assert directions_of(runs.store, usual) == directions_of(runs.store, wide)
    assert not np.allclose(*(array(runs.store, made, "map", 5) for made in (usual, wide)))


def test_chance_false_leaves_out_the_levels_and_what_is_said_of_them(
    runs: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"run_id": runs.ids["noisy"], "n": N, "epochs": "0,5"}
    usual = directed(runs.store, **options)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    chance  ")]
    without = directed(runs.store, **options, chance=False)
    assert "    chance  " not in capsys.readouterr().out
    found = directions_of(runs.store, usual)
    assert directions_of(runs.store, without) == {key: of for key, of in found.items() if "_chance" not in key}
    assert runs.store.json(without, "gradient_directions.json")["chance"] == {}
    assert "chance" not in described(runs, without)["conventions"]
    names = [key.removesuffix("_chance") for key in found if key.endswith("_chance")]
    assert len(names) == len(said) == 6
    for name in names:
        value, level, deviation = (found[f"{name}{end}"][5] for end in ("", "_chance", "_chance_sd"))
        beyond = (value - level) / deviation
        place = "above" if beyond > 2 else "below" if beyond < -2 else "not apart from"
        numbers = f"({value:.3g}; chance {level:.3g} ± {deviation:.2g})"
        assert f"    chance  {LABELS[f'gradient/{name}']} at epoch 5: {place} chance {numbers}" in said


def test_seed_changes_the_bootstrap_and_neither_values_nor_matrices(runs: Trained) -> None:
    options = {"run_id": runs.ids["main"], "n": N, "epochs": "5"}
    one, other = (directed(runs.store, **options, seed=seed) for seed in (1, 2))
    found = [directions_of(runs.store, made) for made in (one, other)]
    for key in found[0]:
        drawn = key.endswith("_se") or key.startswith("silhouette_chance")
        assert (found[0][key] == found[1][key]) is not drawn, key
    assert np.array_equal(*(array(runs.store, made, "cosines", 5) for made in (one, other)))
    assert not np.array_equal(*(array(runs.store, made, "draws", 5) for made in (one, other)))


def test_maps_go_on_from_the_positions_before(runs: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []

    def mapped(cosines: np.ndarray, *, start: np.ndarray | None, **_: object) -> np.ndarray:
        starts.append(start)
        return np.arange(2 * len(cosines), dtype=np.float32).reshape(-1, 2)

    monkeypatch.setattr("nfa.maths.embedding.tsne", mapped)
    made = directed(runs.store, run_id=runs.ids["main"], n=20, epochs="all", maps=True)
    assert starts[0] is None
    for epoch, start in zip([0, 5], starts[1:], strict=True):
        assert np.array_equal(start, array(runs.store, made, "map", epoch))


def test_the_default_number_of_examples_is_as_many_as_there_are(
    runs: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    shorten(runs.store, runs.ids["main"], 35)
    made = directed(runs.store, run_id=runs.ids["main"], epochs="5")
    content = described(runs, made)
    assert len(content["examples"]) == 35
    assert runs.store.params(made)["n"] == "512"
    assert "the run has only 35 training examples: n=35 is used" in capsys.readouterr().out
    assert content["conventions"]["perplexity"] == 34 / 3
