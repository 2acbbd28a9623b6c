"""The record of the sixteen models and the page that is made of it."""

import json

import measured_pages
import pytest

from benchmarks import conformance
from nfa.testing import CheckRow, Conformance, check_workload
from tests.support.toy_models import tiny_classifier


def test_a_row_of_the_record_says_what_is_seen_and_the_largest_difference_of_each_study():
    row = conformance.summary(check_workload(tiny_classifier))
    assert (row["seen"], row["inert"], row["unseen"]) == ("3 of 3", "yes", [])
    for study in ("alignment", "directions", "flow"):
        assert float(row[study]["float64"]) <= 1e-9
        assert float(row[study]["float32"]) <= 1e-5


def test_a_row_of_a_study_that_disturbs_or_does_not_see_says_so():
    rows = [
        CheckRow("flow", "state left as it was", "bitwise", 9, 1, 0, "a buffer"),
        CheckRow("flow", "K", "float64", 3, 1e-3, 0),
    ]
    row = conformance.summary(Conformance(rows, ["a"], ["b", "c"], []))
    assert row == {"seen": "1 of 3", "flow": {"float64": "1.0e-03"}, "inert": "NO", "unseen": ["b", "c"]}


def test_the_page_has_a_line_for_each_model_and_for_each_training(tmp_path, monkeypatch):
    studies = {study: {"float64": "1.0e-15", "float32": "2.0e-07"} for study in ("alignment", "directions", "flow")}
    results = {
        "seen whole": {"seen": "2 of 2", **studies, "inert": "yes", "unseen": []},
        "in float64": {**studies, "seen": "1 of 2", "flow": {"float64": "3.0e-16"}, "inert": "NO", "unseen": ["lstm"]},
    }
    values = {"fc/agop_nfm": {"recorded": 0.25, "by hand": 0.5}, "fc/h_vs_m": {"recorded": 1, "by hand": 1}}
    numbers = {"compared": 9, "series": 2, "apart": "1.0e-08", "allowed": "1.0e-05", "from float64": "2.0e-08"}
    trainings = {"a training": {**numbers, "same": "yes", "ok": True, "values": values}}
    machine = {"processor": "a processor", "cores": 2, "torch": "2"}
    notes = {"models": ["Of models."], "trainings": ["Of trainings."]}
    record = {"title": "Conformance", "command": "python -m x", "date": "today", "machine": machine, "notes": notes}
    content = {**record, "results": {"models": results, "trainings": trainings}}
    (tmp_path / "conformance.json").write_text(json.dumps(content))
    monkeypatch.setattr(measured_pages, "CONFORMANCE", tmp_path / "conformance.json")
    lines = measured_pages.conformance().splitlines()
    assert lines[0] == "# Conformance"
    assert "| seen whole | 2 of 2 | – | 1.0e-15 | 2.0e-07 | 1.0e-15 | 2.0e-07 | 1.0e-15 | 2.0e-07 | yes |" in lines
    assert "| in float64 | 1 of 2 | lstm | 1.0e-15 | 2.0e-07 | 1.0e-15 | 2.0e-07 | 3.0e-16 | – | NO |" in lines
    assert "| a training | 9 | yes | 2 | 1.0e-08 | 1.0e-05 | 2.0e-08 |" in lines
    assert lines[-1] == "| a training | `fc/agop_nfm` | 0.2500000 | 0.5000000 |"
    assert {"- Of models.", "- Of trainings."} <= set(lines)


def test_only_all_models_together_make_a_record(monkeypatch):
    stored = []
    monkeypatch.setattr(conformance, "store", lambda *record: stored.append(record))
    assert conformance.main(["mlp"]) == 0
    assert stored == []
    with pytest.raises(KeyError, match="alexnet"):
        conformance.main(["alexnet"])
