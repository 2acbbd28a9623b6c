"""What an analysis of one run leaves behind, and that it leaves the run as it was."""

import csv
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfa import __version__
from nfa.levels import SUFFIXES, is_beside
from nfa.registry.analyses.config import AnalyzeConfig
from nfa.relations import RELATIONS as RELATIONS_OF
from nfa.studies.alignment import LEVELS
from tests.support.analyses import CHECKPOINTS, SECONDS, SITES, analysed, series, values
from tests.support.processes import run, words
from tests.support.similarity_tables import COLUMNS, read_back
from tests.support.stores import Finished, Store, used, wrapper_in

RELATIONS = ["agop_nfm", "agop_nfm_init_removed", "g_vs_h", "g_vs_m", "h_vs_m"]
LOSSES = ["train/loss", "val/loss"]
NAMES = {"g_vs_h": "G_H", "g_vs_m": "G_M", "h_vs_m": "H_M"}


@pytest.fixture(scope="module")
def default(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The analysis that `python -m entrypoints.analyze` makes without any parameter, with its pictures."""
    store = finished.store.copy(tmp_path_factory.mktemp("default") / "store")
    ended = run(store, [], entrypoint="analyze", pictures=True)
    assert ended.code == 0, ended.output
    source, made = store.runs()
    assert source == finished.run_id
    return Finished(store, made)


@pytest.fixture(scope="module")
def full(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """An analysis with every kind of value: all relations, the readout, subspaces that exist, random directions."""
    store = finished.store.copy(tmp_path_factory.mktemp("full") / "store")
    with pytest.MonkeyPatch.context() as monkeypatch, used(store, monkeypatch):
        options = {"relations": "all", "sites": "layer_?", "top_k": 2, "directions": "3", "max_samples": 50}
        yield Finished(store, analysed(store, **options, epochs="0,4"))


def test_series_have_the_keys_and_steps_of_the_contract(default: Finished) -> None:
    """All training examples are measured, so there is nothing to err about."""
    expected = dict.fromkeys(LOSSES, CHECKPOINTS)
    for name in RELATIONS:
        steps = CHECKPOINTS[1:] if name == "agop_nfm_init_removed" else CHECKPOINTS
        ends = ["", "_chance", "_chance_sd"] + ["_shared", "_shared_sd"] * RELATIONS_OF[name].shares_weights
        expected |= {f"{site}/{name}{end}": steps for site in SITES for end in ends}
    assert {key: sorted(steps) for key, steps in series(default.store, default.run_id).items()} == expected


def test_every_logged_value_is_finite(default: Finished, full: Finished) -> None:
    for made in (default, full):
        assert made.store.rows("SELECT count(*) FROM metrics WHERE is_nan OR abs(value) > 1e300") == [(0,)]
        assert all(math.isfinite(value) for _, _, value in made.store.metrics(made.run_id))


def test_run_is_finished_and_a_child_of_its_source(default: Finished, finished: Finished) -> None:
    tags = default.store.tags(default.run_id)
    expected = {
        "nfa.entrypoint": "analyze",
        "nfa.workload": "mlp",
        "nfa.state": "finished",
        "nfa.error": "",
        "nfa.version": __version__,
        "nfa.source_run_ids": finished.run_id,
        "mlflow.parentRunId": finished.run_id,
    }
    assert {name: tags.get(name) for name in expected} == expected
    assert len(tags["nfa.analysis_digest"]) == 64
    assert "nfa.trained" not in tags
    assert default.store.status(default.run_id) == "FINISHED"


def test_params_are_those_of_the_config(default: Finished) -> None:
    expected = {name: str(item.default) for name, item in AnalyzeConfig.__dataclass_fields__.items()}
    assert default.store.params(default.run_id) == expected


def test_config_json_says_what_was_compared_and_how(default: Finished, finished: Finished) -> None:
    content = default.store.json(default.run_id, "config.json")
    assert content["entrypoint"] == "analyze"
    assert content["nfa_version"] == __version__
    assert AnalyzeConfig(**content["analyze"]) == AnalyzeConfig()
    assert content["sources"] == [finished.run_id]
    assert content["relations"] == RELATIONS
    assert content["sites"] == SITES
    assert content["conventions"] == {
        "centre": "none",
        "agop_power": 1,
        "positions": "each",
        "precision": "float32",
        "weights": "float32",
        "directions": "all",
        "top_k": 10,
        "exponent_cutoff": 1e-6,
        "norms": "as measured",
        **LEVELS,
        "examples": 1149,
    }


def test_config_json_says_it_where_it_was_asked_otherwise(full: Finished) -> None:
    said = full.store.json(full.run_id, "config.json")["conventions"]
    assert (said["directions"], said["top_k"], said["examples"]) == ("3 random, seed 1717", 2, 50)


@pytest.mark.parametrize("name", ["default", "full"])
def test_similarities_json_is_as_specified(name: str, request: pytest.FixtureRequest) -> None:
    made: Finished = request.getfixturevalue(name)
    found, logged = made.store.json(made.run_id, "similarities.json"), series(made.store, made.run_id)
    content = made.store.json(made.run_id, "config.json")
    expected: dict[str, Any] = {}
    for epoch in logged["layer_0/h_vs_m"]:
        for site in content["sites"]:
            row = {NAMES.get(key, key): logged.get(f"{site}/{key}", {}).get(epoch) for key in content["relations"]}
            keys = [f"{name}{end}" for name in content["relations"] for end in SUFFIXES]
            beside = {key: logged.get(f"{site}/{key}", {}).get(epoch) for key in keys}
            row |= {key: value for key, value in beside.items() if value is not None}
            expected.setdefault(str(epoch), {})[site.removeprefix("layer_")] = row
    assert found == expected
    assert list(found) == (["0", "1", "2", "4"] if name == "default" else ["0", "4"])
    assert all(row["agop_nfm_init_removed"] is None for row in found["0"].values())


def test_similarities_csv_has_a_row_for_each_value_and_none_for_what_is_undefined(full: Finished) -> None:
    text = full.store.artifact(full.run_id, "similarities.csv").read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    header, *rows = csv.reader(text.splitlines())
    assert header == ["epoch", *COLUMNS]
    logged = series(full.store, full.run_id)
    assert read_back(text) == {(key, epoch): value for key, of_key in logged.items() for epoch, value in of_key.items()}
    assert [int(row[0]) for row in rows] == sorted(int(row[0]) for row in rows)


def test_figures_are_there_in_both_formats(default: Finished) -> None:
    for name in ("enhanced_analysis", "all_relations"):
        png = default.store.artifact(default.run_id, f"plots/{name}.png").read_bytes()
        pdf = default.store.artifact(default.run_id, f"plots/{name}.pdf").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert pdf.startswith(b"%PDF")
        assert min(len(png), len(pdf)) > 10_000


def files(folder: Path) -> dict[str, str]:
    """Digest by path of everything in a folder."""
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in found}


def test_nothing_but_the_named_artifacts_is_left(default: Finished) -> None:
    expected = {"config.json", "similarities.json", "similarities.csv", "series.npz", "plots/preview.png"}
    expected |= {f"plots/{name}.{kind}" for name in ("enhanced_analysis", "all_relations") for kind in ("png", "pdf")}
    assert set(files(default.store.artifact(default.run_id))) == expected


# ---- the source


def tables(store: Store) -> dict[str, set[tuple[Any, ...]]]:
    names = [name for (name,) in store.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: set(store.rows(f"SELECT * FROM {name}")) for name in names}


def test_the_source_run_is_bitwise_unchanged_in_rows_and_files(changeable: Finished) -> None:
    store = changeable.store
    rows, before = tables(store), files(store.artifact(changeable.run_id))
    made = [analysed(store, relations="all", sites="layer_?"), analysed(store, directions="2", batch_size=100)]
    assert files(store.artifact(changeable.run_id)) == before
    assert set(store.runs()) == {changeable.run_id, *made}
    for table, now in tables(store).items():
        assert rows[table] <= now, f"{table}: a row was changed"
        naming = [row for row in now - rows[table] if changeable.run_id in row]
        assert {row[0] for row in naming} <= {"mlflow.parentRunId", "nfa.source_run_ids"}, table


# ---- options


def test_readout_is_analysed_when_it_is_asked_for_by_name(changeable: Finished) -> None:
    found = values(changeable.store, analysed(changeable.store, sites="layer_2", max_samples=20))
    assert {key.split("/")[0] for key in found} == {"layer_2"}
    assert len([key for key in found if not is_beside(key)]) == len(RELATIONS)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("layer_1,layer_0", SITES),
        ("*", [*SITES, "layer_2"]),
        ("layer_2, *_0", ["layer_0", "layer_2"]),
    ],
)
def test_sites_are_names_and_globs_in_the_order_of_the_network(
    pattern: str, expected: list[str], changeable: Finished
) -> None:
    run_id = analysed(changeable.store, sites=pattern, relations="nfm_stable_rank", epochs="1", max_samples=5)
    assert changeable.store.json(run_id, "config.json")["sites"] == expected
    assert set(values(changeable.store, run_id, 1)) == {f"{site}/nfm_stable_rank" for site in expected}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out_?_vs_?", ["out_g_vs_h", "out_g_vs_m", "out_h_vs_m"]),
        ("h_vs_m, fact_nfm,agop_nfm", ["agop_nfm", "h_vs_m", "fact_nfm"]),
    ],
)
def test_relations_are_names_and_globs(text: str, expected: list[str], changeable: Finished) -> None:
    run_id = analysed(changeable.store, relations=text, epochs="4", max_samples=20)
    assert changeable.store.json(run_id, "config.json")["relations"] == expected
    found = {key for key in values(changeable.store, run_id) if not is_beside(key)}
    assert found == {f"{site}/{name}" for site in SITES for name in expected}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2,0", [0, 2]), ("0-4/2", [0, 2, 4]), (" 1, 4 ", [1, 4])],
)
def test_epochs_have_one_grammar(text: str, expected: list[int], changeable: Finished) -> None:
    found = series(changeable.store, analysed(changeable.store, epochs=text, relations="h_vs_m", max_samples=20))
    assert {tuple(steps) for steps in found.values()} == {tuple(expected)}


def test_init_removed_needs_epoch_0_in_the_run_not_in_the_list(changeable: Finished) -> None:
    found = values(changeable.store, analysed(changeable.store, epochs="2", max_samples=20), 2)
    assert {f"{site}/agop_nfm_init_removed" for site in SITES} <= set(found)


def test_without_a_checkpoint_of_epoch_0_what_needs_it_is_left_out_and_said(
    changeable: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    changeable.store.artifact(changeable.run_id, "checkpoints/epoch_0000.safetensors").unlink()
    run_id = analysed(changeable.store, max_samples=20)
    assert changeable.store.json(run_id, "config.json")["relations"] == [
        name for name in RELATIONS if "init" not in name
    ]
    assert {tuple(steps) for steps in series(changeable.store, run_id).values()} == {(1, 2, 4)}
    assert "left out: agop_nfm_init_removed: there is no checkpoint 0" in capsys.readouterr().out


def test_output_dir_gets_the_same_tree_and_counts_from_where_the_command_was_typed(
    changeable: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFA_CALLER_DIR", str(tmp_path / "typed"))
    run_id = analysed(changeable.store, output_dir="a/b", epochs="4", max_samples=20)
    copied = files(tmp_path / "typed" / "a" / "b")
    stored = files(changeable.store.artifact(run_id))
    assert stored.pop("series.npz")  # a copy itself
    assert copied == stored
    assert {"config.json", "similarities.json", "similarities.csv"} == set(copied)


def test_run_name_is_that_asked_for_or_names_the_source(changeable: Finished) -> None:
    source = changeable.store.rows("SELECT name FROM runs")[0][0]
    names = {}
    for asked in ("", "mine"):
        run_id = analysed(changeable.store, run_name=asked, epochs="4", max_samples=20)
        names[asked] = changeable.store.rows("SELECT name FROM runs WHERE run_uuid = ?", run_id)[0][0]
    assert names == {"": f"analysis of {source}", "mine": "mine"}


def test_the_run_that_mlflow_made_becomes_the_analysis(changeable: Finished) -> None:
    wrapper = wrapper_in(changeable.store)
    argv, env = words(max_samples=20), {"MLFLOW_RUN_ID": wrapper, "MLFLOW_EXPERIMENT_ID": "0"}
    ended = run(changeable.store, argv, entrypoint="analyze", **env)
    assert ended.code == 0, ended.output
    assert changeable.store.runs() == [changeable.run_id, wrapper]
    assert changeable.store.tags(wrapper)["mlflow.parentRunId"] == changeable.run_id
    assert changeable.store.tags(wrapper)["nfa.state"] == "finished"
    assert set(series(changeable.store, wrapper)) >= {*LOSSES, "layer_0/agop_nfm"}


def test_seconds_mark_a_finished_checkpoint(default: Finished) -> None:
    assert [step for key, step, _ in default.store.metrics(default.run_id) if key == SECONDS] == CHECKPOINTS
