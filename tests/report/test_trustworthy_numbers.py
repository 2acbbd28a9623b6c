"""`report`: what is possible, which runs a mean is over, and digits that survive."""

import math
from typing import Any

import pytest

import nfa
from nfa.registry import tracking
from nfa.registry.tracking.store import client
from tests.support.logged_runs import TRAINED, analysis, logged
from tests.support.shown_pages import decoded, report_run, said, series

pytestmark = pytest.mark.usefixtures("store")
LOSS = {"val/loss": {0: 2.0, 1: 1.0}}


# ---- what is possible


@pytest.mark.parametrize(
    ("key", "values", "limits"),
    [
        ("val/accuracy", (50.0, 95.0), [0, None]),
        ("val/loss", (-1.0, -3.7), [None, None]),
        ("flow/x", (-1.0, 2.0), [None, None]),
        ("layer_0/agop_nfm", (0.5, 1.5), [0, None]),
        ("val/accuracy", (0.5, 1.0), [0, 1]),
    ],
)
def test_a_limit_is_only_given_where_the_values_of_all_runs_keep_it(
    key: str, values: tuple[float, float], limits: list[float | None], page: Any
) -> None:
    usual, other = logged({key: {0: 0.5, 1: 0.75}}, seed=1), logged({key: dict(enumerate(values))}, tags={})
    (found,) = page(f"{usual},{other}")["numbers"]["keys"]
    assert found["limits"] == limits


def test_keys_of_one_scale_keep_the_same_limits(page: Any) -> None:
    made = page(logged({"a/agop_nfm": {0: 0.5, 1: 0.5}, "b/agop_nfm": {0: 1.5, 1: 1.5}}))
    assert [key["limits"] for key in made["numbers"]["keys"]] == [[0, None], [0, None]]


def test_an_interval_in_words_is_not_cut_at_a_limit_that_the_values_do_not_keep(page: Any) -> None:
    run_ids = [logged({"val/loss": {3: value}}, seed=seed) for seed, value in enumerate((-1.0, -2.0, -3.0))]
    assert "-2 (-4.48 to 0.484, 95 % t-interval over 3 runs)" in said(page(",".join(run_ids)))


# ---- which runs have logged the values


def test_several_analyses_of_a_run_have_all_their_values(page: Any) -> None:
    run_id = logged(LOSS)
    first = analysis({"layer_0/g_vs_h": {0: 0.25, 1: 0.5}}, run_id)
    second = analysis({"layer_0/agop_nfm": {0: 0.125, 1: 0.5}, "layer_0/g_vs_h": {0: 0.75, 1: 0.75}}, run_id)
    for named in (f"{first},{second}", f"{second},{first}", "tags.`nfa.entrypoint` = 'analyze'"):
        made = page(named)
        assert made["numbers"]["runs"][0]["holders"] == [second, first]
        assert set(made["numbers"]["latest"]["values"]) == {"layer_0/g_vs_h", "layer_0/agop_nfm"}
        assert series(made, "layer_0/g_vs_h") == {0: 0.75, 1: 0.75}
    assert {row.key for row in nfa.results([first, second])} == {"layer_0/g_vs_h", "layer_0/agop_nfm"}


# ---- digits


def test_steps_and_seeds_are_whole_numbers_to_the_last_digit(page: Any) -> None:
    steps = [16777217, 16777218, 2**40 + 1]
    seed = 2**60 + 1
    made = page(logged({"val/loss": dict.fromkeys(steps, 1.0)}, seed=seed))
    assert list(series(made, "val/loss")) == steps
    assert decoded(made["numbers"]["latest"]["steps"]["val/loss"]) == [2**40 + 1]
    assert made["numbers"]["runs"][0]["seed"] == str(seed)


# ---- in the same way in all runs of a group


def measured(run_id: str, value: float, centre: str = "none", key: str = "layer_0/g_vs_h", **stated: object) -> str:
    """An analysis of a run with a value, and a config.json that states how it was measured."""
    made = analysis({key: {0: value, 1: value}, f"{key}_chance": {0: 0.125, 1: 0.125}}, run_id)
    tracking.put_json(client().get_run(made), "config.json", {"conventions": {"centre": centre, **stated}})
    return made


def test_a_mean_is_over_values_that_were_measured_in_the_same_way(page: Any) -> None:
    run_ids = [logged(LOSS, f"seed {seed}", seed=seed) for seed in range(3)]
    for run_id, value in zip(run_ids, (0.25, 0.5, 0.75), strict=True):
        measured(run_id, value)
    other = measured(run_ids[0], 1.0, centre="entry")
    made = page(",".join(run_ids))
    assert series(made, "layer_0/g_vs_h") == {0: 0.25, 1: 0.25}
    assert series(made, "layer_0/g_vs_h", kind="means") == {0: 0.5, 1: 0.5}
    assert "measured in different ways" not in said(made)
    assert f"analyze: centre: entry, in seed 0 (analysis {other[:8]})" in said(made)
    assert series(page(run_ids[0]), "layer_0/g_vs_h") == {0: 1.0, 1: 1.0}, "alone, the newest analysis counts"


def test_values_that_were_measured_in_different_ways_have_no_mean_and_the_page_says_so(page: Any) -> None:
    run_ids = [logged(LOSS, f"seed {seed}", seed=seed) for seed in range(3)]
    for run_id, centre, examples in zip(run_ids, ("entry", "none", "none"), (500, 500, 200), strict=True):
        measured(run_id, 0.5, centre, examples=examples)
    made = page(",".join(run_ids))
    (group,) = made["numbers"]["groups"]
    assert group["apart"] == ["layer_0/g_vs_h"]
    assert made["numbers"]["means"]["layer_0/g_vs_h"] == [None]
    assert made["numbers"]["means"]["val/loss"] != [None]
    ways = "seed 0: centre entry, examples 500; seed 1: centre none, examples 500; seed 2: centre none, examples 200"
    told = "layer_0/g_vs_h of all runs: measured in different ways, so there is no mean over these runs"
    assert f"{told} ({ways})." in said(made)
    assert "Alignment" not in dict(made["words"]["verdicts"])


# ---- parameters and tables


def test_texts_that_look_like_one_number_are_different_parameters(page: Any) -> None:
    made = page(",".join(logged(LOSS, name, tags={}, version=name) for name in ("2.1", "2.10")))
    assert made["words"]["differences"]["rows"] == [["version", "2.1", "2.10"]]


def stored(text: str, path: str = "trials.csv") -> str:
    """A study with a trial and a file."""
    parent = logged({}, "the study", tags={**TRAINED, "nfa.entrypoint": "tune"})
    logged(LOSS, parent=parent)
    tracking.put(client().get_run(parent), path, lambda file: file.write_bytes(text.encode("latin-1")) and None)
    return parent


def test_cells_that_are_no_decimal_numbers_stay_as_they_are(page: Any) -> None:
    cells = ["1234e567", "12345e67", "2.10", "1e-3", "0.5"]
    (table,) = page(stored("a,b,c,d,e\n" + ",".join(cells)))["words"]["tables"]
    assert table["rows"] == [cells]


def test_quoted_cells_may_have_line_ends(page: Any) -> None:
    (table,) = page(stored('a,b\r\n"one\r\ntwo",3\r\n'))["words"]["tables"]
    assert table["rows"] == [["one\r\ntwo", "3"]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n" + "x" * 200_000 + ",1\n", "field larger than field limit"),
        ("a,b\n1,2\n3\n", "which is damaged: row 2 has 1 cell where the first has 2"),
        ("a,b\n\xff,2\n", "which cannot be read"),
    ],
)
def test_a_table_that_cannot_be_read_is_told(text: str, told: str, page: Any) -> None:
    made = page(stored(text))
    assert made["words"]["tables"] == []
    assert told in said(made)


def test_a_long_table_says_where_its_other_rows_are(page: Any) -> None:
    parent = stored("a\n" + "1\n" * 546)
    (table,) = page(parent)["words"]["tables"]
    assert len(table["rows"]) == 500
    told = f"Only the first 500 of 546 rows are on the page; the rest is in trials.csv of run {parent}."
    assert table["missing"] == told
    assert told in tracking.get(report_run().info.run_id, "report.html").read_text(encoding="utf-8")


# ---- runs that nfa has not made


def test_a_workload_that_nfa_does_not_know_is_told_and_no_reason_to_refuse(page: Any) -> None:
    strange = logged(LOSS, "strange", tags={"nfa.workload": "zebra"}, lr=0.1)
    usual = logged(LOSS, seed=1)
    made = page(f"{strange},{usual}")
    assert "strange: not made by nfa" in said(made)
    assert report_run().data.tags["nfa.workload"] == "mlp"
    assert {row.run for row in nfa.results(strange)} == {strange}


def test_steps_of_different_units_on_one_axis_are_told(page: Any) -> None:
    made = page(f"{logged(LOSS, 'ours', seed=1)},{logged(LOSS, 'theirs', tags={})}")
    told = "Steps are not the same in all runs, and yet they share an axis: epochs of ours; steps of theirs."
    assert told in said(made)


# ---- what is not there is told


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300, 2e-50])
def test_values_that_the_page_cannot_hold_are_absent_and_told(value: float, page: Any) -> None:
    made = page(logged({"val/loss": {0: 1.0, 1: value, 2: 3.0, 3: 1.0}, "other": {0: value, 1: value}}, "named"))
    assert series(made, "val/loss") == {0: 1.0, 2: 3.0, 3: 1.0}
    assert "other" not in made["numbers"]["latest"]["values"]
    told = "other, val/loss of named: values that are not finite, or too large or too small for single precision"
    assert told in said(made)
    assert "with a single value" not in said(made)


@pytest.mark.parametrize("end", ["_chance", "_se", "_shared", "_unbiased"])
def test_a_metric_with_the_name_of_a_level_beside_nothing_is_a_value(end: str, page: Any) -> None:
    run_ids = [logged({f"last{end}": {0: value, 1: value}}, seed=seed) for seed, value in enumerate((0.5, 1.5))]
    made = page(",".join(run_ids))
    assert series(made, f"last{end}") == {0: 0.5, 1: 0.5}
    assert decoded(made["numbers"]["latest"]["values"][f"last{end}"]) == [0.5, 1.5]
    assert series(made, f"last{end}", kind="means") == {0: 1.0, 1: 1.0}


def test_metrics_of_a_parent_that_nfa_has_not_made_are_told(page: Any) -> None:
    parent = logged({"best": {0: 1.0}}, "their sweep", tags={})
    logged(LOSS, parent=parent, tags={})
    assert "their sweep: what this parent has logged itself is not here, but in its run: best." in said(page(parent))


def test_a_finished_run_without_files_is_told(page: Any) -> None:
    run_id = logged(LOSS)
    told = f"Files of 1 finished run ({run_id[:12]}): there are none"
    assert told in said(page(run_id))
    tracking.put_json(client().get_run(run_id), "config.json", {"workload": "mlp"})
    assert told not in said(page(run_id))


@pytest.mark.parametrize(
    ("text", "told"), [("{", "config.json"), ("[1]", "it is no object, but a list"), ("[]", "list")]
)
def test_a_damaged_file_is_told_and_not_called_missing(text: str, told: str, page: Any) -> None:
    run_id = logged(LOSS, "named", tags={**TRAINED, "nfa.version": "0.6.0"})
    tracking.put(client().get_run(run_id), "config.json", lambda file: file.write_text(text) and None)
    made = page(run_id)
    assert "on what is not known, because its config.json cannot be read" in said(made)
    assert f"config.json of run {run_id[:12]} cannot be read, so what it tells is not here: " in said(made)
    assert told in said(made)
    assert "no config.json" not in said(made)


def test_an_analysis_of_runs_of_which_one_is_deleted_is_about_the_others_and_says_so(page: Any) -> None:
    kept, deleted = logged(LOSS, seed=1), logged(LOSS, seed=2)
    compared = analysis({}, kept, deleted)
    alone = analysis({"layer_0/g_vs_h": {0: 0.25, 1: 0.5}}, deleted)
    client().delete_run(deleted)
    made = page(compared)
    assert [run["id"] for run in made["numbers"]["runs"]] == [kept]
    assert f"an analysis is about 1 run not in the store any more: {deleted}." in said(made)
    assert {row.run for row in nfa.results(compared)} == {kept}
    assert series(page(alone), "layer_0/g_vs_h") == {0: 0.25, 1: 0.5}
    assert f"an analysis is about 1 run not in the store any more: {deleted}." in said(page(alone))


def test_what_a_seed_lacks_has_no_mean_in_words(page: Any) -> None:
    run_ids = [logged({"val/loss": {0: 1.0, 3: value}}, seed=seed) for seed, value in enumerate((0.25, 0.5))]
    run_ids.append(logged({"train/loss": {0: 1.0, 3: 0.5}}, seed=2))
    assert "val loss 0.25 to 0.5, without a mean because 1 of 3 runs lack it" in said(page(",".join(run_ids)))


def test_factors_of_a_comparison_say_over_what_they_are_means(page: Any) -> None:
    run_ids = [logged(LOSS, seed=seed) for seed in (1, 2)]
    compared = analysis({}, *run_ids)
    of_seeds = {str(seed): {"gradient_factor": of, "update_factor": None} for seed, of in ((1, 0.5), (2, 2.0))}
    remedy = {"gradient_factor": 1.0, "update_factor": None, "by_seed": of_seeds}
    content = {"compared_with": "sgd", "remedies": {"adam": remedy}}
    tracking.put_json(client().get_run(compared), "gradient_flow.json", content)
    told = "adam against sgd: gradient ratio × 1 (0.5 to 2 over 2 seeds), update ratio not measured"
    assert f"{told} (geometric means over all checkpoints of both, not values at the last one)." in said(page(compared))


def test_a_filter_may_have_commas_of_its_own(page: Any) -> None:
    run_id = logged(LOSS, tag="a,,b")
    logged(LOSS, tag="c")
    assert [run["id"] for run in page("params.tag = 'a,,b'")["numbers"]["runs"]] == [run_id]


def test_the_name_of_a_report_is_no_markdown_in_a_link(page: Any) -> None:
    run_id = logged(LOSS)
    for _ in range(2):
        page(run_id, run_name="my_*best*_[run] `x`")
    (line,) = client().get_run(run_id).data.tags["mlflow.note.content"].splitlines()
    assert line.startswith(r"Report: [my\_\*best\*\_ run \`x\`](#/experiments/")
