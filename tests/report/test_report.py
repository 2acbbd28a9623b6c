"""`report`: the numbers of the page are those that the runs have logged, and its words say where they come from."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import RunTag

import nfa
from nfa.errors import Refusal
from nfa.maths.statistics import t_interval
from nfa.registry import tracking
from nfa.registry.report.config import ReportConfig
from nfa.registry.report.report import report
from nfa.registry.tracking.store import client
from tests.support.logged_runs import TRAINED, analysis, logged, tagged
from tests.support.processes import environment_of_tests
from tests.support.shown_pages import close, decoded, report_run, said, series

pytestmark = pytest.mark.usefixtures("store")
STEPS = range(4)
LOSS = {"val/loss": {0: 2.0, 1: 1.0, 2: 1.5}, "train/loss": {0: 2.0, 1: 0.5}}


# ---- numbers


def test_the_numbers_of_the_page_are_those_that_were_logged(page: Any) -> None:
    run_id = logged(LOSS, "a name", seed=7)
    made = page(run_id)
    assert [key["key"] for key in made["numbers"]["keys"]] == ["train/loss", "val/loss"]
    for key, of in LOSS.items():
        assert series(made, key) == of
        assert decoded(made["numbers"]["latest"]["values"][key]) == [of[max(of)]]
        assert decoded(made["numbers"]["latest"]["steps"][key]) == [max(of)]
    (run,) = made["numbers"]["runs"]
    assert (run["id"], run["name"], run["seed"], run["status"], run["unit"]) == (
        run_id,
        "a name",
        "7",
        "finished",
        "epoch",
    )


def test_the_page_itself_holds_these_numbers(page: Any) -> None:
    made = page(logged(LOSS))
    html = tracking.get(report_run().info.run_id, "report.html").read_text(encoding="utf-8")
    stored = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    assert stored
    assert json.loads(stored[1]) == json.loads(json.dumps(made["numbers"]))


def test_errors_and_levels_stand_beside_their_values(page: Any) -> None:
    ends = {"": 0.5, "_se": 0.0625, "_unbiased": 0.625, "_chance": 0.25, "_chance_sd": 0.125, "_shared": 0.375}
    made = page(logged({f"layer_0/agop_nfm{end}": {0: value, 4: value} for end, value in ends.items()}))
    (key,) = made["numbers"]["keys"]
    assert (key["site"], key["relation"], key["limits"]) == ("layer_0", "agop_nfm", [0, 1])
    assert series(made, key["key"]) == {0: 0.5, 4: 0.5}
    for end, value in [*ends.items()][1:]:
        assert series(made, key["key"], of=end.removeprefix("_")) == {0: value, 4: value}


@pytest.mark.parametrize(
    ("values", "limits"), [((0.2, 0.9), [0, 1]), ((50.0, 95.0), [0, None]), ((-3.0, 0.5), [None, 1])]
)
def test_a_limit_of_a_key_holds_only_where_all_runs_keep_it(
    values: tuple[float, float], limits: list[float | None], page: Any
) -> None:
    kept = logged({"val/accuracy": {0: 0.1, 1: 0.2}})
    other = logged({"val/accuracy": dict(enumerate(values))})
    (key,) = page(f"{kept},{other}")["numbers"]["keys"]
    assert key["limits"] == limits


def test_values_of_an_analysis_name_the_run_that_has_logged_them(page: Any) -> None:
    run_id = logged(LOSS)
    analysed = analysis({"layer_0/g_vs_h": {0: 0.25, 1: 0.5}}, run_id)
    made = page(run_id)
    assert made["numbers"]["runs"][0]["holders"] == [run_id, analysed]
    assert made["numbers"]["curves"]["layer_0/g_vs_h"][0]["of"] == 1
    assert "of" not in made["numbers"]["curves"]["val/loss"][0]


def test_last_values_of_an_analysis_name_the_run_that_has_logged_them(page: Any) -> None:
    trained = logged({"val/loss": {0: 1.0}})
    other = analysis({"layer_0/g_vs_h": {0: 0.5}}, trained)
    made = page(trained)["numbers"]
    assert made["latest"]["of"] == {"layer_0/g_vs_h": [1]}
    assert made["runs"][0]["holders"][1] == other


def test_values_with_a_chance_level_come_before_those_without(page: Any) -> None:
    run_id = logged({"layer_0/agop_nfm": {0: 0.5, 1: 0.5}})
    analysis({"layer_0/agop_nfm": {0: 0.25, 1: 0.25}, "layer_0/agop_nfm_chance": {0: 0.125, 1: 0.125}}, run_id)
    assert series(page(run_id), "layer_0/agop_nfm") == {0: 0.25, 1: 0.25}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_absent(value: float, page: Any) -> None:
    made = page(logged({"val/loss": {0: 1.0, 1: value, 2: 3.0}, "other": {0: value}}, tags={}))
    assert series(made, "val/loss") == {0: 1.0, 2: 3.0}
    assert "other" not in made["numbers"]["latest"]["values"]


def test_of_each_stretch_of_a_long_series_the_lowest_and_the_highest_value_are_kept(
    page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfa.registry.report.curves.MOST_POINTS", 30)
    draw = np.random.default_rng(0)
    values = dict(enumerate(draw.standard_normal(500).tolist()))
    values[123], values[321] = 50.0, -50.0
    made = page(logged({"val/loss": values}))
    shown = series(made, "val/loss")
    assert len(shown) <= 30
    assert {0, 123, 321, 499} <= shown.keys()
    assert close(shown, {step: values[step] for step in shown})
    assert made["numbers"]["curves"]["val/loss"][0]["points"] == 500


# ---- seeds


def of_seeds(seeds: Sequence[int], scale: float = 1.0, **parameters: object) -> list[str]:
    draws = {seed: np.random.default_rng(seed) for seed in seeds}
    return [
        logged({"val/loss": {step: scale * draw.random() for step in STEPS}}, f"seed {seed}", seed=seed, **parameters)
        for seed, draw in draws.items()
    ]


def reference(run_ids: Sequence[str], key: str, step: int) -> Any:
    return t_interval([{row.step: row.value for row in tracking.metric_rows(one, key)}[step] for one in run_ids])


def test_means_over_seeds_have_the_interval_of_a_slow_reference(page: Any) -> None:
    run_ids = of_seeds(range(4))
    made = page(",".join(run_ids))
    assert [group["runs"] for group in made["numbers"]["groups"]] == [[0, 1, 2, 3]]
    for name, field in (("values", "mean"), ("low", "low"), ("high", "high"), ("n", "n")):
        wanted = {step: getattr(reference(run_ids, "val/loss", step), field) for step in STEPS}
        if name == "low":
            wanted = {step: max(0.0, value) for step, value in wanted.items()}
        assert close(series(made, "val/loss", of=name, kind="means"), wanted), name


def test_two_seeds_have_a_range_and_no_interval(page: Any) -> None:
    made = page(",".join(of_seeds([1, 2])))
    assert {"low", "high"}.isdisjoint(made["numbers"]["means"]["val/loss"][0])
    assert "(2 runs)" in said(made)
    assert "t-interval over 2" not in said(made)
    assert "too few for an interval" in said(made)


def test_what_is_equal_in_all_seeds_has_no_interval(page: Any) -> None:
    run_ids = [logged({"test/loss": {3: 0.5}}, seed=seed) for seed in range(3)]
    assert "all runs at epoch 3: test loss 0.5 in each of 3 runs." in said(page(",".join(run_ids)))


def test_a_score_over_three_seeds_has_its_interval_in_words_within_what_is_possible(page: Any) -> None:
    run_ids = [logged({"val/accuracy": {3: value}}, seed=seed) for seed, value in enumerate((0.01, 0.02, 0.3))]
    (line,) = [line for _, of in page(",".join(run_ids))["words"]["verdicts"] for line in of]
    assert "0.11 (0 to 0.519, 95 % t-interval over 3 runs)" in line["text"]
    assert (line["run"], line["keys"], line["step"]) == (",".join(run_ids), "val/accuracy", 3)


def test_without_several_seeds_there_are_no_means_and_the_page_says_so(page: Any) -> None:
    made = page(logged(LOSS, seed=1))
    assert made["numbers"]["means"] == {}
    assert "nothing here tells how much a value varies with the seed" in said(made)


def test_groups_are_told_apart_by_the_parameters_that_differ(page: Any) -> None:
    common = {"width": 8, "lr": 0.1}
    made = page(",".join([*of_seeds([1, 2], optimizer="sgd", **common), *of_seeds([1, 2], optimizer="adam", **common)]))
    assert [group["name"] for group in made["numbers"]["groups"]] == ["sgd", "adam"]
    assert made["words"]["differences"]["rows"] == [["optimizer", "sgd", "adam"]]
    assert ["width", "8"] in made["words"]["common"]["rows"]
    assert "seed" not in str(made["words"]["differences"]["rows"] + made["words"]["common"]["rows"])


def test_one_number_in_two_spellings_is_no_difference(page: Any) -> None:
    made = page(f"{logged(LOSS, lr='1e-3', chance='True')},{logged(LOSS, lr='0.001', chance='true', width=3)}")
    assert [row[0] for row in made["words"]["differences"]["rows"]] == ["width"]


def test_a_mean_ends_where_a_seed_has_ended_and_the_page_says_so(page: Any) -> None:
    whole = logged({"val/loss": {0: 1.0, 1: 1.0, 2: 1.0}}, seed=1)
    short = logged({"val/loss": {0: 3.0, 1: 2.0}}, "the short one", seed=2)
    tagged(short, state="killed", error="SIGTERM")
    made = page(f"{whole},{short}")
    assert series(made, "val/loss", kind="means") == {0: 2.0, 1: 1.5}
    assert "the short one ends after epoch 1" in said(made)
    assert "the short one: killed: SIGTERM" in said(made)
    assert made["numbers"]["runs"][1]["status"] == "killed"


# ---- which runs


def test_a_parent_stands_for_its_runs(page: Any) -> None:
    parent = logged({"val/loss": {0: 9.0}}, "the parent")
    children = [logged(LOSS, f"child {seed}", parent=parent, seed=seed) for seed in (1, 2)]
    made = page(parent)
    assert [run["id"] for run in made["numbers"]["runs"]] == children
    assert made["words"]["title"] == "the parent"


def test_an_analysis_stands_for_its_own_values(page: Any) -> None:
    run_id = logged(LOSS)
    analysed = analysis({"layer_0/g_vs_h": {0: 0.25, 1: 0.5}}, run_id)
    made = page(analysed)
    assert [run["id"] for run in made["numbers"]["runs"]] == [run_id]
    assert set(made["numbers"]["latest"]["values"]) == {"layer_0/g_vs_h"}


def test_a_filter_string_names_the_runs_that_match_it(page: Any) -> None:
    logged(LOSS, optimizer="sgd")
    wanted = [logged(LOSS, optimizer="adam", seed=seed) for seed in (1, 2)]
    assert [run["id"] for run in page("params.optimizer = 'adam'")["numbers"]["runs"]] == wanted


def test_a_report_of_latest_is_that_of_the_newest_training_and_not_of_a_report(page: Any) -> None:
    logged(LOSS, "an old one")
    newest = logged(LOSS, "the newest")
    page("latest")
    assert [run["id"] for run in page("latest")["numbers"]["runs"]] == [newest]
    assert tracking.find_run("latest").info.run_id == newest


def test_a_report_of_a_report_is_one_of_its_runs(page: Any) -> None:
    run_ids = [logged(LOSS, seed=seed) for seed in (1, 2)]
    page(",".join(run_ids))
    again = page(report_run().info.run_id)
    assert [run["id"] for run in again["numbers"]["runs"]] == run_ids
    alone = page(run_ids[0])
    assert alone["numbers"]["runs"][0]["holders"] == [run_ids[0]]


def test_a_report_is_no_value_of_the_runs_that_it_is_about(page: Any) -> None:
    run_id = logged(LOSS)
    page(run_id)
    assert {row.run for row in nfa.results(run_id)} == {run_id}
    assert {row.run for row in nfa.results(report_run().info.run_id)} == {run_id}


def test_a_report_of_many_runs_names_all_of_them_in_its_config(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nfa.registry.report.report.MOST_IDS", 2)
    run_ids = [logged(LOSS, seed=seed) for seed in range(3)]
    page(",".join(run_ids))
    made = report_run()
    assert made.data.tags["nfa.source_run_ids"] == ",".join(run_ids[:2])
    assert [run["id"] for run in page(made.info.run_id)["numbers"]["runs"]] == run_ids


def test_a_run_that_nfa_has_not_made_is_told_in_words(page: Any) -> None:
    made = page(logged({"my metric": {0: 1.0, 1: 2.0}}, "theirs", tags={}))
    assert series(made, "my metric") == {0: 1.0, 1: 2.0}
    assert "theirs: not made by nfa" in said(made)


def test_a_run_without_metrics_is_told_in_words(page: Any) -> None:
    made = page(logged({}, "empty", lr=0.1))
    assert "empty: no metrics were logged" in said(made)
    assert made["numbers"]["keys"] == []


def test_a_run_of_version_0_6_is_told_in_words(page: Any) -> None:
    made = page(logged(LOSS, "old", tags={**TRAINED, "nfa.version": "0.6.0"}))
    assert "old: made by nfa 0.6" in said(made)
    assert "no config.json" in said(made)


# ---- words


def test_alignment_is_told_with_its_levels_at_the_last_checkpoint(page: Any) -> None:
    ends = {"": 0.75, "_se": 0.01, "_chance": 0.125, "_chance_sd": 0.01, "_shared": 0.5, "_shared_sd": 0.01}
    values = {f"layer_{layer}/agop_nfm{end}": {0: 0.0, 5: of} for layer in (0, 1) for end, of in ends.items()}
    run_id = logged({**values, "layer_1/agop_nfm": {0: 0.0, 5: 0.5}}, "named")
    verdicts = dict(page(run_id)["words"]["verdicts"])
    (line,) = verdicts["Alignment"]
    assert "above chance in 2 of 2 layers, above the shared-weights level in 1" in line["text"]
    assert "layer 0 0.75 ± 0.02 against chance 0.125 ± 0.02, shared weights 0.5 ± 0.02" in line["more"]
    assert (line["run"], line["keys"], line["step"]) == (run_id, "*/agop_nfm", 5)


def test_a_relation_without_a_value_at_a_site_is_absent_and_told(page: Any) -> None:
    made = page(logged({"a/agop_nfm": {0: 0.5, 1: 0.5}, "b/agop_nfm": {0: 0.5, 1: 0.5}, "a/g_vs_h": {0: 0.1, 1: 0.2}}))
    assert "G vs H is undefined at 1 site: b. It is absent, not 0." in said(made)
    assert "b/g_vs_h" not in made["numbers"]["latest"]["values"]


def test_gradient_directions_are_told_beside_chance(page: Any) -> None:
    key = "gradient/within_class_cosine"
    run_id = logged(LOSS, "named")
    tags = {"nfa.entrypoint": "gradient_directions", "nfa.workload": "mlp", "nfa.source_run_ids": run_id}
    values = {
        key: {5: 0.5},
        f"{key}_chance": {5: 0.1},
        f"{key}_chance_sd": {5: 0.01},
        "gradient/noise_scale": {5: 30.0},
    }
    analysed = logged(values, parent=run_id, tags=tags)
    lines = dict(page(run_id)["words"]["verdicts"])["Gradient directions"]
    assert "above chance (0.5; chance 0.1 ± 0.01)" in lines[0]["text"]
    assert (lines[0]["run"], lines[0]["step"]) == (analysed, 5)
    assert "noise scale tr Σ / |G|² at epoch 5: 30" in lines[1]["text"]


def test_gradient_directions_of_several_seeds_are_told_together(page: Any) -> None:
    run_ids = [logged(LOSS, seed=seed) for seed in range(3)]
    for value, run_id in zip((0.25, 0.5, 0.75), run_ids, strict=True):
        tags = {"nfa.entrypoint": "gradient_directions", "nfa.workload": "mlp", "nfa.source_run_ids": run_id}
        key = "gradient/within_class_cosine"
        logged({key: {5: value}, f"{key}_chance": {5: 0.125}}, parent=run_id, tags=tags)
    (line,) = dict(page(",".join(run_ids))["words"]["verdicts"])["Gradient directions"]
    told = "0.5 (-0.121 to 1, 95 % t-interval over 3 runs) against chance 0.125"
    assert line["text"] == f"all runs: mean cosine within a class at epoch 5: {told}."


def test_gradient_flow_is_told_with_its_verdicts(page: Any) -> None:
    run_id = logged(LOSS)
    tags = {"nfa.entrypoint": "gradient_flow", "nfa.workload": "mlp", "nfa.source_run_ids": run_id}
    values = {"flow/front_output_ratio": {4: 0.75}, "flow/a/weight_change": {4: 0.5}, "nfa/seconds": {4: 1.0}}
    analysed = logged(values, parent=run_id, tags=tags)
    groups = {"names": {"a": ["a"], "b": ["b"]}, "front": "a", "back": None, "output": "b"}
    tracking.put_json(client().get_run(analysed), "config.json", {"groups": groups, "unit": "epoch"})
    lines = dict(page(run_id)["words"]["verdicts"])["Gradient flow"]
    assert "gradient of the front strong: front/output 0.75 (epoch 4)" in lines[0]["text"]
    assert (lines[0]["run"], lines[0]["step"]) == (analysed, 4)


def test_an_analysis_of_gradient_flow_without_results_is_told(page: Any) -> None:
    run_id = logged(LOSS)
    logged({}, parent=run_id, tags={"nfa.entrypoint": "gradient_flow", "nfa.source_run_ids": run_id})
    assert "the analysis of gradient flow has ended before its verdicts" in said(page(run_id))


ABLATION = """arm,seeds,pearson,low,high,difference,difference_low,difference_high
v1,3,0.2,0.15,0.25,,,
full,3,0.3,0.25,0.35,0.1,0.05,0.15"""


def test_an_ablation_is_told_with_the_interval_of_each_difference(page: Any) -> None:
    parent = logged({}, tags={"nfa.entrypoint": "ablate_eeg", "nfa.workload": "eeg", "nfa.trained": "true"})
    logged(LOSS, parent=parent)
    tracking.put_text(client().get_run(parent), "ablation.csv", ABLATION)
    told = said(page(parent))
    assert "v1, 3 seeds: Pearson's r 0.2000 (0.1500, 0.2500, 95 % over recordings and seeds)." in told
    assert "full minus v1: 0.1000 (0.0500, 0.1500, 95 % over recordings and seeds), better." in told


def test_a_comparison_of_fine_tunings_is_told_once(page: Any) -> None:
    tags = {"nfa.entrypoint": "lora_experiment", "nfa.workload": "lora", "nfa.trained": "true"}
    parent = logged({}, tags=tags)
    run_id = logged(LOSS, parent=parent)
    difference = {"mean": -0.25, "low": -0.5, "high": -0.125, "verdict": "better", "by_seed": {}}
    compared = {"arm": "svd", "random": "random", "at_equal_steps": difference, "random_in_compute": None}
    arms = [{"label": "svd", "start_operations": 0}, {"label": "random", "start_operations": 0}]
    below = logged({}, parent=parent, tags={"nfa.entrypoint": "compare_lora", "nfa.source_run_ids": run_id})
    for one in (parent, below):
        content = {"arms": arms, "comparisons": [compared]}
        tracking.put_json(client().get_run(one), "comparison.json", content)
    told = said(page(parent))
    assert told.count("svd, at equal steps as random: -0.2500 (-0.5000, -0.1250), better.") == 1


STUDY = {
    "study": "s",
    "objectives": [{"name": "val/loss", "direction": "minimize"}],
    "trials": {"finished": 2},
    "best": {"val/loss": {"trial": 1, "parameters": {"lr": 0.5}, "values": [0.25], "run_id": "abc"}},
    "importances": {
        "val/loss": {"lr": {"value": 0.9, "low": 0.8, "high": 1.0, "null": 0.1, "p": 0.01, "mattered": True}}
    },
    "no_importance": {"val/loss": {}},
    "confirmation": [
        {"arm": "defaults", "failed_seeds": []},
        {
            "arm": "best",
            "failed_seeds": [],
            "differences": {
                "val/loss": {"mean": -0.5, "low": -0.75, "high": -0.25, "n": 3, "seeds": 3, "verdict": "better"}
            },
        },
    ],
    "trade_off": {"correlation": 0.5, "low": 0.1, "high": 0.8, "n": 12, "front": 2, "said": "they agree"},
}


def test_a_study_is_told_with_its_intervals_its_report_and_its_trials(page: Any) -> None:
    parent = logged({}, "the study", tags={**TRAINED, "nfa.entrypoint": "tune"})
    tagged(logged(LOSS, "trial 1", parent=parent, lr=0.5), best="true")
    logged(LOSS, "trial 0", parent=parent, lr=0.1)
    run = client().get_run(parent)
    tracking.put_json(run, "study.json", STUDY)
    tracking.put_text(run, "study.txt", "the report")
    tracking.put_text(run, "trials.csv", "trial,val/loss\n0,0.123456789\n1,0.25")
    made = page(parent)
    told = said(made)
    assert "Trained again: best, val/loss: better than the defaults by 0.5 (0.25, 0.75) over 3 fresh seeds." in told
    assert "Share of the variance of val/loss due to lr: +0.90 (+0.80, +1.00), +0.10 by chance: mattered." in told
    assert "Best trial in val/loss: trial 1, val/loss 0.25 with lr 0.5. The value of the best trial is biased" in told
    assert "Trade-off: they agree: Spearman's correlation +0.50 (+0.10, +0.80), 12 trials." in told
    assert "trial 1: selected as the best of its study" in told
    assert [(text["path"], text["text"]) for text in made["words"]["texts"]] == [("study.txt", "the report")]
    (table,) = made["words"]["tables"]
    assert (table["head"], table["rows"]) == (["trial", "val/loss"], [["0", "0.123457"], ["1", "0.25"]])


def test_conventions_and_few_examples_are_told_with_the_run_that_states_them(page: Any) -> None:
    run_id = logged(LOSS)
    analysed = analysis({"layer_0/g_vs_h": {0: 0.25, 1: 0.5}}, run_id)
    tracking.put_json(client().get_run(analysed), "config.json", {"conventions": {"centre": "none", "examples": 20}})
    made = page(run_id)
    assert ("analyze: centre: none", analysed) in [(line["text"], line["run"]) for line in made["words"]["conventions"]]
    assert "measured on 20 examples, so errors are large" in said(made)


def test_a_damaged_file_is_no_reason_to_fail(page: Any) -> None:
    run_id = logged(LOSS, "named")
    tracking.put_json(client().get_run(run_id), "config.json", {"workload": "mlp"})
    tracking.get(run_id, "config.json").write_text("{", encoding="utf-8")
    assert "its config.json cannot be read" in said(page(run_id))


def test_different_losses_are_told_and_stand_on_their_axis(page: Any) -> None:
    made = page(f"{logged(LOSS, loss='mse')},{logged(LOSS, loss='cross-entropy')}")
    assert made["numbers"]["keys"][0]["axis"] == "losses: cross-entropy, mse"
    assert "minimise different losses (cross-entropy, mse)" in said(made)


# ---- keys


def test_only_the_keys_that_are_asked_for_are_drawn_and_the_others_are_in_the_table(page: Any) -> None:
    made = page(logged({**LOSS, "layer_0/agop_nfm": {0: 0.5, 1: 0.5}}), keys="agop_nfm")
    assert [key["key"] for key in made["numbers"]["keys"]] == ["layer_0/agop_nfm"]
    assert set(made["numbers"]["latest"]["values"]) == {*LOSS, "layer_0/agop_nfm"}
    assert "2 keys that keys= does not name" in said(made)


def test_keys_without_room_are_in_the_table_and_named(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nfa.registry.report.shown_keys.MOST_SERIES", 4)
    relation = {f"layer_{layer}/agop_nfm{end}": {0: 0.5, 1: 0.5} for layer in range(5) for end in ("", "_se")}
    made = page(logged({**LOSS, **relation}))
    shown = [key["key"] for key in made["numbers"]["keys"]]
    assert shown == ["train/loss", "val/loss", "layer_0/agop_nfm", "layer_4/agop_nfm"]
    assert "se" not in made["numbers"]["curves"]["layer_0/agop_nfm"][0]
    assert "The series of 3 keys have no room here (layer_1/agop_nfm" in said(made)
    assert set(made["numbers"]["latest"]["values"]) == {*LOSS, *(f"layer_{layer}/agop_nfm" for layer in range(5))}


def test_a_key_with_one_value_has_no_curve(page: Any) -> None:
    made = page(logged({**LOSS, "test/loss": {2: 0.5}}))
    assert "test/loss" not in made["numbers"]["curves"]
    assert decoded(made["numbers"]["latest"]["values"]["test/loss"]) == [0.5]
    assert "A curve of 1 key with a single value in each run" in said(made)


def test_sections_name_only_keys_that_are_there_in_the_order_of_a_page(page: Any) -> None:
    wanted = {
        "Losses": "val/loss",
        "Scores": "val/accuracy",
        "Training": "train/lr",
        "G vs H": "layer_0/g_vs_h",
        "Gradient directions": "gradient/mean_cosine",
        "Gradient flow": "flow/front_output_ratio",
        "Other values": "mine",
    }
    made = page(logged({key: {0: 0.5, 1: 0.25} for key in sorted(wanted.values())}))
    found = {section["title"]: section["keys"] for section in made["numbers"]["sections"]}
    assert found == {title: [key] for title, key in wanted.items()}
    assert list(found) == list(wanted)
    assert [key["key"] for key in made["numbers"]["keys"] if key.get("held")] == ["train/lr"]


# ---- the run of the report, and links to it


def test_the_page_is_in_a_run_of_its_own_and_in_the_output_folder(page: Any, tmp_path: Path) -> None:
    run_id = logged(LOSS, "a name")
    page(run_id, output_dir=str(tmp_path / "out"))
    made = report_run()
    assert made.info.run_name == "report of a name"
    assert made.data.tags["nfa.source_run_ids"] == run_id
    assert made.data.tags["nfa.state"] == "finished"
    assert "mlflow.parentRunId" not in made.data.tags
    copy = (tmp_path / "out" / "report.html").read_bytes()
    assert copy == tracking.get(made.info.run_id, "report.html").read_bytes()
    assert "the page is the artifact report.html" in made.data.tags["mlflow.note.content"]


def note(run_id: str) -> str:
    return str(client().get_run(run_id).data.tags.get("mlflow.note.content", ""))


def test_the_newest_report_is_linked_once_at_the_end_of_what_a_user_has_written(page: Any) -> None:
    run_id = logged(LOSS)
    client().log_batch(run_id, tags=[RunTag("mlflow.note.content", "my own words")])
    page(run_id, run_name="first")
    first = client().get_run(run_id).data.tags["nfa.report"]
    page(run_id, run_name="second")
    second = client().get_run(run_id).data.tags["nfa.report"]
    assert first != second
    assert note(run_id) == f"my own words\n\nReport: [second](#/experiments/0/runs/{second}/artifacts/report.html)"


def test_a_link_survives_the_description_that_the_run_writes_of_itself(page: Any) -> None:
    with tracking.open_run("train", "mlp") as run:
        tracking.put_note(run, "it has started")
        run.metrics.log({"val/loss": 1.0}, 0)
    page(run.run_id)
    link = note(run.run_id).removeprefix("it has started")
    with tracking.reopen_run(run.run_id, finished_too=True) as again:
        tracking.put_note(again, "it has ended")
    assert note(run.run_id) == f"it has ended{link}"
    assert link.startswith("\n\nReport: [")


def test_linking_leaves_the_state_of_a_run_as_it_was(page: Any) -> None:
    run_id = tagged(logged(LOSS), state="killed")
    before = client().get_run(run_id)
    page(run_id)
    after = client().get_run(run_id)
    assert (after.info.status, after.info.end_time) == (before.info.status, before.info.end_time)
    changed = {key for key, text in after.data.tags.items() if before.data.tags.get(key) != text}
    assert changed == {"mlflow.note.content", "nfa.report"}
    assert after.data.params == before.data.params


def test_a_run_that_a_process_is_working_on_is_left_alone_and_told(page: Any) -> None:
    with tracking.open_run("train", "mlp") as run:
        run.metrics.log({"val/loss": 1.0}, 0)
        run.metrics.flush()
        before = client().get_run(run.run_id).data.tags
        made = page(run.run_id)
        assert client().get_run(run.run_id).data.tags == before
    assert made["numbers"]["runs"][0]["status"] == "running"
    assert "1 run still running: without a link to this page." in said(made)


def test_looking_at_runs_for_a_report_loads_neither_pytorch_nor_optuna(tmp_path: Path) -> None:
    code = "import sys, nfa.registry.report.report; print([x for x in ('torch', 'optuna') if x in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment_of_tests(), capture_output=True)
    assert done.stdout.decode().strip() == "[]"


# ---- refusals


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"run_id": "abcdef"}, "run id 'abcdef'"),
        ({"run_id": "params.lr = '7'"}, "no run matches it"),
        ({"run_id": "latest", "keys": "nothing"}, "keys=nothing"),
    ],
)
def test_what_cannot_be_reported_is_refused_before_a_run_is_made(options: dict[str, str], match: str) -> None:
    logged(LOSS)
    with pytest.raises(Refusal, match=match):
        report(ReportConfig(**options))
    assert client().search_runs(["0"], "tags.`nfa.entrypoint` = 'report'") == []


def test_an_output_folder_that_is_a_file_is_refused_before_a_run_is_made(tmp_path: Path) -> None:
    logged(LOSS)
    (tmp_path / "file").touch()
    with pytest.raises(Refusal, match="output_dir"):
        report(ReportConfig(output_dir=str(tmp_path / "file")))
    assert client().search_runs(["0"], "tags.`nfa.entrypoint` = 'report'") == []


def test_an_empty_run_id_is_refused() -> None:
    with pytest.raises(Refusal, match="run_id=''"):
        ReportConfig(run_id="")
