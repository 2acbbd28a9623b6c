"""`analyze target_se=…`: one number of examples for all checkpoints, logged, and reached or explained."""

import pytest

from nfa.registry import tracking
from tests.support.analyses import CHECKPOINTS, SITES, analysed, series
from tests.support.stores import Finished, used

RELATION = "h_vs_m"
KEYS = [f"{SITES[0]}/{RELATION}"]
ASKED = {"relations": RELATION, "sites": SITES[0]}


@pytest.fixture
def store(finished: Finished, tmp_path, monkeypatch):
    copy = finished.store.copy(tmp_path / "store")
    with used(copy, monkeypatch):
        yield copy


def test_values_are_the_unbiased_ones_of_the_number_that_is_logged(store) -> None:
    run = analysed(store, **ASKED, target_se=0.05)
    accuracy = tracking.get_json(run, "config.json")["accuracy"]
    n = accuracy["examples"]
    assert accuracy["reached"] is True
    assert accuracy["largest"]["standard_error"] <= 0.05
    params = dict(store.rows(f"SELECT key, value FROM params WHERE run_uuid = '{run}'"))
    assert params.get("resolved.max_samples", params["max_samples"]) == str(n)
    assert tracking.get_json(run, "config.json")["conventions"]["examples"] == n
    found, plain = series(store, run), series(store, analysed(store, **ASKED, max_samples=n))
    for key in KEYS:
        assert sorted(found[key]) == CHECKPOINTS
        for step, value in found[key].items():
            assert value == pytest.approx(plain[f"{key}_unbiased"][step], abs=1e-6)
            assert found[f"{key}_se"][step] == pytest.approx(plain[f"{key}_se"][step], rel=1e-4)
    assert not any(key.endswith("_unbiased") for key in found)


def test_a_target_out_of_reach_names_the_relation_and_measures_as_many_as_it_may(store, capsys) -> None:
    run = analysed(store, **ASKED, target_se=1e-6, max_samples=300)
    accuracy = tracking.get_json(run, "config.json")["accuracy"]
    assert (accuracy["examples"], accuracy["reached"]) == (300, False)
    assert accuracy["largest"]["relation"] in KEYS
    assert "target_se=1e-06 is not reached" in capsys.readouterr().out


def test_the_same_question_is_answered_by_copies(store, capsys) -> None:
    first = analysed(store, **ASKED, target_se=0.05)
    capsys.readouterr()
    second = analysed(store, **ASKED, target_se=0.05)
    assert "4 of 4 checkpoints, from an earlier run" in capsys.readouterr().out
    assert series(store, first) == series(store, second)
    described = [tracking.get_json(run, "config.json")["accuracy"] for run in (first, second)]
    assert described[0] == described[1]
