"""What `gradient_directions` leaves behind of one run, and that it leaves the run as it was."""

import csv
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nfa import __version__
from nfa.registry.analyses.config import GradientDirectionsConfig
from nfa.registry.analyses.gradient_directions import gradient_directions
from tests.support.analyses import SECONDS, series
from tests.support.gradient_direction_runs import (
    MAIN,
    SERIES,
    WITH_CHANCE,
    WITHOUT_ERROR,
    Trained,
    array,
    array_names,
    directed,
    directions_of,
)
from tests.support.stores import Finished, Store, used, wrapper_in

N = 40
PREVIEW = "plots/preview.png"
PICTURES = {f"plots/{name}_epoch_{epoch}.png" for name in ("gradient_similarities", "gradient_directions_tsne")
            for epoch in MAIN}  # fmt: skip
FIGURES = {f"plots/{name}.{kind}" for name in ("gradient_montage", "gradient_directions", "gns_vs_epoch")
           for kind in ("png", "pdf")}  # fmt: skip


@pytest.fixture(scope="module")
def default(trained_runs: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """The default analysis of a few examples, with its pictures, and with a copy in the folder `out`."""
    store = trained_runs.store.copy(tmp_path_factory.mktemp("default") / "store")
    before = snapshot(store, trained_runs.ids["main"])
    with pytest.MonkeyPatch.context() as monkeypatch, used(store, monkeypatch):
        asked = {"run_id": trained_runs.ids["main"], "n": N, "output_dir": "out", "device": "cpu"}
        made = directed(store, pictures=True, maps=True, **asked)
        assert snapshot(store, trained_runs.ids["main"]) == before
        yield Finished(store, made)


def snapshot(store: Store, run_id: str) -> dict[str, Any]:
    """Every file of a run, and every row that is its own."""
    tables = [name for (name,) in store.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    own = [table for table in tables if ("run_uuid",) in store.rows(f"SELECT name FROM pragma_table_info('{table}')")]
    rows = {table: sorted(store.rows(f"SELECT * FROM {table} WHERE run_uuid = ?", run_id), key=str) for table in own}
    assert all(rows[table] for table in ("runs", "tags", "params", "metrics"))
    return {"files": files(store.artifact(run_id)), **rows}


def files(folder: Path) -> dict[str, str]:
    """Digest by path of everything in a folder."""
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in found}


def test_every_series_is_there_at_the_default_s_epochs_that_exist_with_error_and_chance(default: Finished) -> None:
    names = {f"gradient/{name}{end}" for name in SERIES for end in ("", "_se")}
    names |= {f"gradient/{name}{end}" for name in WITH_CHANCE for end in ("_chance", "_chance_sd")}
    expected = dict.fromkeys(names | {"gradient/zero_fraction", "train/loss", "val/loss"}, MAIN)
    expected["gradient/correlation_with_previous"] = MAIN[1:]
    found = series(default.store, default.run_id)
    assert {key: sorted(of_key) for key, of_key in found.items()} == expected
    assert all(value > 0 for key in names if key.endswith(("_se", "_sd")) for value in found[key].values())
    assert all(math.isfinite(value) for of_key in found.values() for value in of_key.values())
    assert [step for key, step, _ in default.store.metrics(default.run_id) if key == SECONDS] == MAIN


def test_losses_are_copied_from_the_run(default: Finished, trained_runs: Trained) -> None:
    ours, theirs = series(default.store, default.run_id), series(default.store, trained_runs.ids["main"])
    for key in ("train/loss", "val/loss"):
        assert ours[key] == {epoch: theirs[key][epoch] for epoch in MAIN}


def test_run_is_finished_and_a_child_of_its_source(default: Finished, trained_runs: Trained) -> None:
    tags, source = default.store.tags(default.run_id), trained_runs.ids["main"]
    expected = {
        "nfa.entrypoint": "gradient_directions",
        "nfa.workload": "mlp",
        "nfa.state": "finished",
        "nfa.error": "",
        "nfa.version": __version__,
        "nfa.source_run_ids": source,
        "mlflow.parentRunId": source,
        "mlflow.runName": "gradient directions of main",
    }
    assert {name: tags.get(name) for name in expected} == expected
    assert len(tags["nfa.analysis_digest"]) == 64
    assert "nfa.trained" not in tags
    assert default.store.status(default.run_id) == "FINISHED"


def test_params_are_those_of_the_config(default: Finished, trained_runs: Trained) -> None:
    expected = {name: str(item.default) for name, item in GradientDirectionsConfig.__dataclass_fields__.items()}
    expected |= {"run_id": trained_runs.ids["main"], "n": str(N), "output_dir": "out", "device": "cpu"}
    assert default.store.params(default.run_id) == {**expected, "resolved.sketch": "none"}


def test_config_json_says_which_examples_and_how(default: Finished, trained_runs: Trained) -> None:
    content, source = default.store.json(default.run_id, "config.json"), trained_runs.ids["main"]
    probe = default.store.json(source, "example_ids.json")["probe"]
    assert content["entrypoint"] == "gradient_directions"
    assert content["nfa_version"] == __version__
    assert content["sources"] == [source]
    assert GradientDirectionsConfig(**content["gradient_directions"]).n == N
    assert content["examples"] == probe[:N]
    assert sorted(set(content["classes"])) == list(range(10))
    assert content["noisy"] is None
    assert content["parameters"] == [f"layers.{layer}.weight" for layer in range(3)]
    assert content["conventions"] == {
        "unit": "sample",
        "loss": "cross-entropy",
        "bootstrap_draws": 500,
        "perplexity": (N - 1) / 3,
        "distance": "sqrt(2 - 2 cos)",
        "noise_scale": "tr(Sigma)/|G|^2 of an example's gradient, stratified by class where there are classes",
        "chance": "permuted classes or wrong labels (200 draws for the silhouette); mean_cosine: random signs",
        "sketch": "none",
        "seed": 1717,
    }


def test_artifacts_are_those_of_the_specification(default: Finished) -> None:
    found = set(files(default.store.artifact(default.run_id)))
    shown = {path for path in found if path.startswith("images/")}
    reports = {"config.json", "gradient_directions.json", "gradient_directions.csv", "series.npz", PREVIEW}
    assert found - shown == array_names(MAIN) | PICTURES | FIGURES | reports
    for path in PICTURES | FIGURES:
        content = default.store.artifact(default.run_id, path).read_bytes()
        assert content.startswith(b"\x89PNG" if path.endswith("png") else b"%PDF")
        assert len(content) > 5000


def test_pictures_are_an_image_series_too(default: Finished) -> None:
    """A file for each picture and step, in full and compressed, under the names that the tracking UI looks for."""
    folder = default.store.artifact(default.run_id, "images")
    for key in ("gradient_similarities", "gradient_directions_tsne"):
        for epoch in MAIN:
            (full,) = folder.glob(f"{key}+step+{epoch}+*.png")
            assert full.with_name(f"{full.stem}+compressed.webp").exists()
            drawn = default.store.artifact(default.run_id, f"plots/{key}_epoch_{epoch}.png")
            assert np.array_equal(np.array(Image.open(full)), np.array(Image.open(drawn).convert("RGB")))
    assert len(list(folder.iterdir())) == 2 * 2 * len(MAIN)
    assert default.store.tags(default.run_id)["mlflow.loggedImages"] == "True"


def test_arrays_are_as_long_as_there_are_directions(default: Finished) -> None:
    for epoch in MAIN:
        found = {key: array(default.store, default.run_id, key, epoch) for key in ("cosines", "map", "norms", "kept")}
        m = len(found["kept"])
        assert found["cosines"].shape == (m, m)
        assert (found["map"].shape, found["norms"].shape) == ((m, 2), (m,))
        assert np.array_equal(found["cosines"], found["cosines"].T)
        assert np.array_equal(found["cosines"].diagonal(), np.ones(m))
        assert found["cosines"].dtype == found["map"].dtype == np.float32
        assert found["norms"].min() > 0
        assert list(found["kept"]) == sorted(set(found["kept"]))
        zeros = directions_of(default.store, default.run_id)["zero_fraction"][epoch]
        assert m == round(N * (1 - zeros))
        assert array(default.store, default.run_id, "losses", epoch).shape == (N,)
        assert array(default.store, default.run_id, "draws", epoch).shape == (10, 500)


def test_all_numbers_are_in_the_json(default: Finished) -> None:
    content, logged = (
        default.store.json(default.run_id, "gradient_directions.json"),
        directions_of(default.store, default.run_id),
    )
    assert content["epochs"] == MAIN
    assert content["undefined"] == {"correlation_with_previous": 1}
    names = SERIES | WITHOUT_ERROR
    assert content["series"] == {name: [logged[name].get(epoch) for epoch in MAIN] for name in names}
    errors = {name: [logged.get(f"{name}_se", {}).get(epoch) for epoch in MAIN] for name in names}
    assert content["standard_errors"] == errors
    for end in ("chance", "chance_sd"):
        assert content[end] == {name: [logged[f"{name}_{end}"][epoch] for epoch in MAIN] for name in WITH_CHANCE}
    said = default.store.json(default.run_id, "config.json")
    for key in ("examples", "classes", "noisy", "parameters", "conventions"):
        assert content[key] == said[key]
    for epoch in MAIN:
        kept = array(default.store, default.run_id, "kept", epoch)
        missing = sorted(set(range(N)) - set(kept.tolist()))
        assert content["without_direction"].get(str(epoch), []) == missing


def test_phases_are_means_and_changes_are_their_differences_with_an_interval(default: Finished) -> None:
    phases = default.store.json(default.run_id, "gradient_directions.json")["phases"]
    logged = directions_of(default.store, default.run_id)
    assert list(phases) == ["early", "middle", "early to middle"]
    assert (phases["early"]["epochs"], phases["middle"]["epochs"]) == ([5], [20])
    for name in SERIES:
        assert phases["early"][name] == pytest.approx(logged[name][5])
        assert phases["middle"][name] == pytest.approx(logged[name][20])
        change = phases["early to middle"][name]
        assert change["change"] == pytest.approx(logged[name][20] - logged[name][5])
        assert change["low"] < change["high"]
    of_norm = phases["early to middle"]["mean_cosine"]
    assert of_norm["low"] < of_norm["change"] < of_norm["high"]


def test_csv_has_a_row_for_each_value_and_none_for_what_is_undefined(default: Finished) -> None:
    text = default.store.artifact(default.run_id, "gradient_directions.csv").read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    header, *rows = csv.reader(text.splitlines())
    assert header == ["epoch", "series", "value", "standard_error", "chance", "chance_sd"]
    found = {}
    for epoch, key, *given in rows:
        for end, number in zip(("", "_se", "_chance", "_chance_sd"), given, strict=True):
            if number:
                found[f"{key}{end}", int(epoch)] = float(number)
    logged = series(default.store, default.run_id)
    assert found == {(key, epoch): value for key, of_key in logged.items() for epoch, value in of_key.items()}
    assert [int(row[0]) for row in rows] == sorted(int(row[0]) for row in rows)


def test_output_dir_gets_the_same_tree_without_the_copies_of_series_and_figure(default: Finished) -> None:
    stored = files(default.store.artifact(default.run_id))
    assert stored.pop("series.npz")
    assert stored.pop(PREVIEW)
    assert files(default.store.folder / "out") == stored


def test_the_run_that_mlflow_made_becomes_the_analysis(runs: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = wrapper_in(runs.store)
    with used(runs.store, monkeypatch):
        monkeypatch.setenv("MLFLOW_RUN_ID", wrapper)
        known = runs.store.runs()
        monkeypatch.setattr("nfa.registry.analyses.gradient_directions_report.report", lambda *_: None)
        gradient_directions(GradientDirectionsConfig(run_id=runs.ids["main"], n=20, epochs="5", run_name="mine"))
    assert runs.store.runs() == known
    tags = runs.store.tags(wrapper)
    assert (tags["mlflow.parentRunId"], tags["nfa.state"]) == (runs.ids["main"], "finished")
    assert tags["mlflow.runName"] == "mine"
    assert set(directions_of(runs.store, wrapper)["mean_cosine"]) == {5}
