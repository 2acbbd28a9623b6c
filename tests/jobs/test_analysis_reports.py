"""Tables of analyses from series: every value once, what is undefined as null or not at all."""

import csv
import json
from pathlib import Path

import pytest

from nfa.analyses.csv_files import alignment_csv, alignment_rows
from nfa.errors import Refusal
from nfa.registry.analyses.alignment_report import line, say_verdicts, similarities
from nfa.registry.analyses.output_folders import output_folder
from nfa.registry.tracking.sources import DONE

SITES = ["layer_0", "encoder.conv"]
RELATIONS = ["agop_nfm", "agop_nfm_init_removed", "g_vs_h", "g_vs_m", "h_vs_m", "h_stable_rank"]
SERIES = {
    DONE: {0: 1.5, 2: 2.5, 10: 0.5},
    "train/loss": {0: 3.0, 10: 1.0},
    "val/loss": {0: 4.0, 2: 3.5, 10: 2.0},
    "layer_0/agop_nfm": {0: 0.25, 2: 0.5, 10: 0.75},
    "layer_0/agop_nfm_se": {0: 0.01, 10: 0.02},
    "layer_0/agop_nfm_init_removed": {2: 0.125},
    "layer_0/g_vs_h": {0: 0.1},
    "encoder.conv/h_stable_rank": {10: 1.75},
    "layer_2/agop_nfm": {0: 0.9},  # of a site that is not reported
}


def test_similarities_are_by_epoch_layer_and_relation_and_undefined_ones_are_null() -> None:
    content = similarities(SERIES, SITES, RELATIONS)
    assert list(content) == ["0", "2", "10"]
    assert all(list(of_epoch) == ["0", "encoder.conv"] for of_epoch in content.values())
    assert content["0"]["0"] == {
        "agop_nfm": 0.25,
        "agop_nfm_init_removed": None,
        "G_H": 0.1,
        "G_M": None,
        "H_M": None,
        "h_stable_rank": None,
        "agop_nfm_se": 0.01,
    }
    assert content["2"]["0"]["agop_nfm_init_removed"] == 0.125
    assert "agop_nfm_se" not in content["2"]["0"]
    assert content["10"]["encoder.conv"]["h_stable_rank"] == 1.75
    assert json.loads(json.dumps(content, allow_nan=False)) == content


BESIDE = {"_se": 0.01, "_unbiased": 0.26, "_chance": 0.125, "_chance_sd": 0.03, "_shared": 0.2, "_shared_sd": 0.0}


def test_errors_and_levels_stand_beside_their_value_where_they_exist() -> None:
    series = {**SERIES, **{f"layer_0/agop_nfm{end}": {0: value} for end, value in BESIDE.items()}}
    content = similarities(series, SITES, ["agop_nfm"])
    assert content["0"]["0"] == {"agop_nfm": 0.25, **{f"agop_nfm{end}": value for end, value in BESIDE.items()}}
    assert content["2"]["0"] == {"agop_nfm": 0.5}
    assert content["2"]["encoder.conv"] == {"agop_nfm": None}
    _, *rows = csv.reader(alignment_csv(series, SITES, ["agop_nfm"], "epoch", DONE).splitlines())
    assert [row for row in rows if row[1]] == [
        ["0", "layer_0", "agop_nfm", "0.25", "0.01", "0.26", "0.125", "0.03", "0.2", "0.0"],
        ["2", "layer_0", "agop_nfm", "0.5", *[""] * 6],
        ["10", "layer_0", "agop_nfm", "0.75", *[""] * 6],
    ]


def test_an_epoch_counts_once_its_checkpoint_is_finished() -> None:
    """A value of an analysis that was ended between two writes is in no report."""
    unfinished = {**SERIES, DONE: {0: 1.5}}
    assert list(similarities(unfinished, SITES, RELATIONS)) == ["0"]
    assert {epoch for epoch, *_ in alignment_rows(unfinished, SITES, RELATIONS, DONE)} == {0}


def test_table_has_one_row_for_each_value_by_epoch_losses_first() -> None:
    header, *found = csv.reader(alignment_csv(SERIES, SITES, RELATIONS, "epoch", DONE).splitlines())
    levels = ["chance", "chance_sd", "shared", "shared_sd"]
    assert header == ["epoch", "site", "relation", "value", "standard_error", "unbiased", *levels]
    assert {cell for row in found for cell in row[5:]} == {""}
    assert [row[:5] for row in found] == [
        ["0", "", "train/loss", "3.0", ""],
        ["0", "", "val/loss", "4.0", ""],
        ["0", "layer_0", "agop_nfm", "0.25", "0.01"],
        ["0", "layer_0", "g_vs_h", "0.1", ""],
        ["2", "", "val/loss", "3.5", ""],
        ["2", "layer_0", "agop_nfm", "0.5", ""],
        ["2", "layer_0", "agop_nfm_init_removed", "0.125", ""],
        ["10", "", "train/loss", "1.0", ""],
        ["10", "", "val/loss", "2.0", ""],
        ["10", "layer_0", "agop_nfm", "0.75", "0.02"],
        ["10", "encoder.conv", "h_stable_rank", "1.75", ""],
    ]


def test_table_of_a_watched_training_goes_by_the_steps_of_its_probe() -> None:
    series = {"probe/loss": {0: 1.0, 5: 0.5}, "0/h_vs_m": {0: 0.25, 5: 0.75}}
    assert [row[:4] for row in alignment_rows(series, ["0"], ["h_vs_m"])] == [
        (0, "", "probe/loss", 1.0),
        (0, "0", "h_vs_m", 0.25),
        (5, "", "probe/loss", 0.5),
        (5, "0", "h_vs_m", 0.75),
    ]


def test_names_with_commas_stay_in_their_column() -> None:
    text = alignment_csv({DONE: {1: 1.0}, "a,b/h_vs_m": {1: 0.5}}, ["a,b"], ["h_vs_m"], "epoch", DONE)
    assert list(csv.reader(text.splitlines()))[1][:4] == ["1", "a,b", "h_vs_m", "0.5"]


def test_values_are_written_so_that_they_are_read_back_exactly() -> None:
    value = 0.1 + 0.2
    text = alignment_csv({DONE: {1: 1.0}, "layer_0/h_vs_m": {1: value}}, ["layer_0"], ["h_vs_m"], "epoch", DONE)
    assert float(next(row for row in csv.reader(text.splitlines()) if row[0] == "1")[3]) == value


def test_line_shows_the_first_relation_of_each_site() -> None:
    values = {
        "layer_0/agop_nfm": 0.12345,
        **{f"layer_0/agop_nfm{end}": 0.5 for end in BESIDE},
        "layer_0/h_vs_m": 0.9,
        "a.b/agop_nfm": 0.5,
        DONE: 1.26,
    }
    assert line(values) == "agop_nfm 0.123 0.500  1.3 s"


def test_line_is_of_a_relation_though_levels_come_first() -> None:
    assert line({"0/agop_nfm_chance": 0.1, "0/agop_nfm": 0.5, DONE: 1.0}) == "agop_nfm 0.500  1.0 s"


ABOVE = {"layer_0/agop_nfm": {0: 0.1, 2: 0.75}, "layer_0/agop_nfm_chance": {0: 0.25, 2: 0.25}}


def test_a_report_ends_with_a_verdict_on_each_relation_that_has_chance_levels(
    capsys: pytest.CaptureFixture[str],
) -> None:
    series = {DONE: {0: 1.0, 2: 1.0}, **ABOVE, "layer_0/h_stable_rank": {2: 3.0}}
    say_verdicts([series], ["layer_0"], ["agop_nfm", "h_stable_rank"], "epoch")
    said = "agop_nfm at epoch 2: above chance in 1 of 1 layers, no shared-weights level"
    assert capsys.readouterr().out == f"   verdict  {said}\n"


def test_the_verdict_on_several_runs_is_at_the_last_step_that_all_have(capsys: pytest.CaptureFixture[str]) -> None:
    say_verdicts([{DONE: {0: 1.0, 2: 1.0}, **ABOVE}, {DONE: {0: 1.0}, **ABOVE}], ["layer_0"], ["agop_nfm"], "epoch")
    assert "agop_nfm at epoch 0: above chance in 0 of 1 layers" in capsys.readouterr().out
    say_verdicts([{DONE: {0: 1.0}, **ABOVE}, {DONE: {2: 1.0}, **ABOVE}], ["layer_0"], ["agop_nfm"], "epoch")
    assert capsys.readouterr().out == ""


def test_line_is_short_where_there_are_many_sites() -> None:
    values = {**{f"layer_{index}/h_vs_m": index / 100 for index in range(20)}, DONE: 0.0}
    assert line(values) == "h_vs_m 0.000 0.010 0.020 0.030 0.040 0.050 0.060 0.070 …  0.0 s"


def test_line_says_where_nothing_is_defined() -> None:
    assert line({DONE: 1.0}) == "no value is defined"


def test_output_folder_is_found_writable_and_not_made_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NFA_CALLER_DIR", str(tmp_path))
    folder = output_folder("a/../b/c")
    assert folder == tmp_path / "b" / "c"
    assert list(tmp_path.iterdir()) == []
    assert output_folder("") is None


def test_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="a writable folder"):
        output_folder(str(tmp_path / "file"))
