"""What `sketch` of `gradient_directions` stores: values with their error, how they were made, and nothing biased."""

import math

import numpy as np
import pytest

from nfa.measures import sketch_sizes
from tests.support.gradient_direction_runs import MAIN, Trained, array, directed, directions_of

N = 30


@pytest.fixture
def always_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tiny networks are sketched."""
    monkeypatch.setattr(sketch_sizes, "SMALL", 0)
    monkeypatch.setattr(sketch_sizes, "_of_exact", lambda *_: math.inf)


def off_diagonal(cosines: np.ndarray) -> np.ndarray:
    return cosines[~np.eye(len(cosines), dtype=bool)]


@pytest.mark.usefixtures("always_cheaper")
def test_a_sketch_has_the_error_that_it_states_and_says_how_it_was_made(runs: Trained) -> None:
    of = {"run_id": runs.ids["main"], "n": N}
    exact, made = directed(runs.store, **of), directed(runs.store, sketch="16", **of)
    stated, found = directions_of(runs.store, exact), directions_of(runs.store, made)
    assert "sketch_error" not in stated
    assert list(found["sketch_error"]) == MAIN
    assert "correlation_with_previous" in stated
    assert "correlation_with_previous" not in found
    for epoch in MAIN:
        cosines = [off_diagonal(array(runs.store, one, "cosines", epoch)) for one in (exact, made)]
        error = float(np.sqrt(np.mean((cosines[1] - cosines[0]) ** 2)))
        assert found["sketch_error"][epoch] == pytest.approx(error, rel=0.6)
        far = abs(found["mean_cosine"][epoch] - stated["mean_cosine"][epoch])
        assert far <= 4 * found["mean_cosine_se"][epoch]
    config, numbers = (runs.store.json(made, name) for name in ("config.json", "gradient_directions.json"))
    assert set(config["random_vectors"].values()) == {16}
    assert config["conventions"]["sketch"].startswith("16 random vectors for each of 3 parameters")
    assert numbers["random_vectors"] == config["random_vectors"]
    assert numbers["series"]["sketch_error"] == [found["sketch_error"][epoch] for epoch in MAIN]
    assert runs.store.params(made)["sketch"] == "16"


def test_the_default_is_exact_for_gradients_that_fit_and_the_run_says_so(runs: Trained) -> None:
    of = {"run_id": runs.ids["main"], "n": N, "epochs": "5"}
    default, exact = directed(runs.store, **of), directed(runs.store, sketch="none", **of)
    values = [directions_of(runs.store, one) for one in (default, exact)]
    assert values[0] == values[1]
    params = runs.store.params(default)
    assert (params["sketch"], params["resolved.sketch"]) == ("auto", "none")
    assert runs.store.json(default, "config.json")["conventions"]["sketch"] == "none"
    assert "resolved.sketch" not in runs.store.params(exact)


@pytest.mark.usefixtures("always_cheaper")
def test_a_comparison_of_sketched_analyses_has_all_differences(runs: Trained) -> None:
    ids = f"{runs.ids['main']},{runs.ids['fast']}"
    made = directed(runs.store, run_id=ids, n=N, epochs="5", sketch="8")
    assert "gradient/mean_cosine" in runs.store.json(made, "differences.json")["series"]
