"""What has no value is absent and counted: examples without a gradient, classes of one, weights that are not finite."""

import math

import numpy as np
import pytest

from nfa.registry import tracking
from nfa.registry.analyses import gradient_directions_report
from tests.support.gradient_direction_runs import MAIN, Trained, array, array_names, directed, directions_of, fill

N = 20
PAIRS = {"mean_cosine", "silhouette", "within_class_cosine", "between_class_cosine"}


def test_with_one_example_a_class_there_is_no_noise_scale_and_nothing_within_a_class(
    runs: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    made = directed(runs.store, run_id=runs.ids["main"], n=10)
    found = directions_of(runs.store, made)
    content = runs.store.json(made, "gradient_directions.json")
    assert sorted(content["classes"]) == list(range(10))
    absent = {"within_class_cosine", "noise_scale", "mean_gradient_squared", "gradient_variance"}
    assert not absent & set(found)
    assert {"mean_cosine", "between_class_cosine", "effective_rank", "zero_fraction"} <= set(found)
    assert {name: content["undefined"].get(name) for name in absent} == dict.fromkeys(absent, len(MAIN))
    assert all(content["series"][name] == [None, None] for name in absent)
    said = capsys.readouterr().out
    assert "notice  10 of 10 classes with only one example, so there is no unbiased noise scale; increase n" in said


def test_where_every_gradient_is_zero_nothing_is_defined_and_the_analysis_is_finished(
    runs: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    for epoch in MAIN:
        fill(runs.store, runs.ids["main"], epoch, 0)
    made = directed(runs.store, run_id=runs.ids["main"], n=N, pictures=True, maps=True)
    assert runs.store.tags(made)["nfa.state"] == "finished"
    found = directions_of(runs.store, made)
    assert not (PAIRS | {"effective_rank", "noise_scale"}) & set(found)
    assert found["zero_fraction"] == dict.fromkeys(MAIN, 1.0)
    content = runs.store.json(made, "gradient_directions.json")
    assert content["undefined"]["mean_cosine"] == content["undefined"]["noise_scale"] == len(MAIN)
    assert content["without_direction"] == {str(epoch): list(range(N)) for epoch in MAIN}
    said = capsys.readouterr().out
    for epoch in MAIN:
        assert f"notice  epoch {epoch}: 0 gradients are finite and nonzero, too few for a map" in said
        assert f"epoch {epoch}  no value is defined" in said
        assert array(runs.store, made, "cosines", epoch).shape == (0, 0)
        assert array(runs.store, made, "map", epoch).shape == (0, 2)
    assert "at every epoch, all gradients are zero or not finite" in said
    pictures = {file.name for file in runs.store.artifact(made, "plots").iterdir()}
    drawn = {f"{name}.{kind}" for name in ("gns_vs_epoch", "gradient_directions") for kind in ("png", "pdf")}
    assert pictures == {*drawn, "preview.png"}


def test_several_runs_without_any_direction_can_be_compared(runs: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_directions_report, "report", lambda *_: None)  # drawn in the test before
    for name in ("fast", "seed 4"):
        fill(runs.store, runs.ids[name], 5, 0)
    both = f"{runs.ids['fast']},{runs.ids['seed 4']}"
    made = directed(runs.store, run_id=both, n=10, pictures=True)
    assert runs.store.tags(made)["nfa.state"] == "finished"
    assert not runs.store.artifact(made, "plots/gradient_montage.png").exists()
    assert "gradient/mean_cosine" not in runs.store.json(made, "differences.json")["series"]


@pytest.mark.parametrize("entry", [math.nan, pytest.param(math.inf, marks=pytest.mark.slow)])
def test_a_checkpoint_that_is_not_finite_is_left_out_and_all_others_are_as_before(
    entry: float, runs: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"run_id": runs.ids["main"], "n": N, "epochs": "0,5,20", "maps": True}
    expected = directed(runs.store, **options)
    runs.store.change("DELETE FROM tags WHERE key = 'nfa.analysis_digest'")  # so that the next one computes
    fill(runs.store, runs.ids["main"], 5, entry)
    capsys.readouterr()
    made = directed(runs.store, **options)
    before, found = directions_of(runs.store, expected), directions_of(runs.store, made)
    del before["correlation_with_previous"]
    assert 20 not in found.get("correlation_with_previous", {})
    for key, of_key in before.items():
        assert {epoch: value for epoch, value in found[key].items() if epoch != 5} == {
            epoch: value for epoch, value in of_key.items() if epoch != 5
        }
    assert {key for key, of_key in found.items() if 5 in of_key} == {"zero_fraction"}
    assert found["zero_fraction"][5] == 1
    assert runs.store.rows("SELECT count(*) FROM metrics WHERE is_nan OR abs(value) > 1e300") == [(0,)]
    content = runs.store.json(made, "gradient_directions.json")
    assert content["series"]["mean_cosine"][1] is None
    assert content["undefined"]["mean_cosine"] == 1
    assert "0 gradients are finite and nonzero, too few for a map" in capsys.readouterr().out
    for key in ("cosines", "norms", "kept", "losses", "draws"):
        for epoch in (0, 20):
            ours, theirs = (array(runs.store, run_id, key, epoch) for run_id in (made, expected))
            assert np.array_equal(ours, theirs, equal_nan=key == "draws")
    assert {f"arrays/{file.name}" for file in runs.store.artifact(made, "arrays").iterdir()} == array_names([0, 5, 20])


def test_the_map_after_a_checkpoint_without_one_goes_on_from_the_last_there_is(
    runs: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []

    def mapped(cosines: np.ndarray, *, start: np.ndarray | None, **_: object) -> np.ndarray:
        starts.append(start)
        return np.arange(2 * len(cosines), dtype=np.float32).reshape(-1, 2)

    monkeypatch.setattr("nfa.maths.embedding.tsne", mapped)
    fill(runs.store, runs.ids["main"], 5, math.nan)
    made = directed(runs.store, run_id=runs.ids["main"], n=N, epochs="0,5,20", maps=True)
    assert starts[0] is None
    assert np.array_equal(starts[1], array(runs.store, made, "map", 0))


def test_pictures_of_a_run_with_a_spoilt_checkpoint_are_of_the_others_with_their_rows_in_order(
    runs: Trained,
) -> None:
    """By class, then by mean loss over the checkpoints where it is finite."""
    fill(runs.store, runs.ids["main"], 5, math.nan)
    made = directed(runs.store, run_id=runs.ids["main"], n=N, epochs="0,5,20")
    described = runs.store.json(made, "config.json")
    drawn = gradient_directions_report.directions(made, tracking.history(made), described)
    assert list(drawn) == [0, 20]
    mean = np.mean([array(runs.store, made, "losses", epoch) for epoch in (0, 20)], axis=0)
    order = np.lexsort((mean, described["classes"]))
    for epoch, shown in drawn.items():
        cosines, kept = (array(runs.store, made, key, epoch) for key in ("cosines", "kept"))
        rows = [list(kept).index(place) for place in order if place in kept]
        assert np.array_equal(shown.cosines, cosines[np.ix_(rows, rows)])
        assert np.array_equal(shown.losses, mean[kept][rows])
