"""The record of the sixteen models and the page that is made of it."""

import json

import pytest
from test_docs import generator
from toys import tiny_classifier

from benchmarks import conformance
from nfa.testing import Conformance, Row, check_workload


def test_a_row_of_the_record_says_what_is_seen_and_the_largest_difference_of_each_study():
    row = conformance.summary(check_workload(tiny_classifier))
    assert (row["seen"], row["inert"], row["unseen"]) == ("3 of 3", "yes", [])
    for study in ("alignment", "directions", "flow"):
        assert float(row[study]["float64"]) <= 1e-9
        assert float(row[study]["float32"]) <= 1e-5


def test_a_row_of_a_study_that_disturbs_or_does_not_see_says_so():
    rows = [
        Row("flow", "state left as it was", "bitwise", 9, 1, 0, "a buffer"),
        Row("flow", "K", "float64", 3, 1e-3, 0),
    ]
    row = conformance.summary(Conformance(rows, ["a"], ["b", "c"], []))
    assert row == {"seen": "1 of 3", "flow": {"float64": "1.0e-03"}, "inert": "NO", "unseen": ["b", "c"]}


def test_the_page_has_a_line_for_each_model_and_one_for_what_is_not_seen(tmp_path, monkeypatch):
    studies = {study: {"float64": "1.0e-15", "float32": "2.0e-07"} for study in ("alignment", "directions", "flow")}
    results = {
        "seen whole": {"seen": "2 of 2", **studies, "inert": "yes", "unseen": []},
        "in float64": {**studies, "seen": "1 of 2", "flow": {"float64": "3.0e-16"}, "inert": "NO", "unseen": ["lstm"]},
    }
    machine = {"processor": "a processor", "cores": 2, "torch": "2"}
    record = {"title": "Conformance", "command": "python -m x", "date": "today", "machine": machine, "notes": ["Note."]}
    (tmp_path / "conformance.json").write_text(json.dumps({**record, "results": results}))
    pages = generator()
    monkeypatch.setattr(pages, "CONFORMANCE", tmp_path / "conformance.json")
    lines = pages.conformance().splitlines()
    assert lines[0] == "# Conformance"
    assert "| seen whole | 2 of 2 | 1.0e-15 | 2.0e-07 | 1.0e-15 | 2.0e-07 | 1.0e-15 | 2.0e-07 | yes |" in lines
    assert "| in float64 | 1 of 2 | 1.0e-15 | 2.0e-07 | 1.0e-15 | 2.0e-07 | 3.0e-16 | – | NO |" in lines
    assert lines[-3:] == ["- in float64: not seen: lstm", "", "- Note."]


def test_only_all_models_together_make_a_record(monkeypatch):
    stored = []
    monkeypatch.setattr(conformance, "store", lambda *record: stored.append(record))
    assert conformance.main(["mlp"]) == 0
    assert stored == []
    with pytest.raises(KeyError, match="alexnet"):
        conformance.main(["alexnet"])
