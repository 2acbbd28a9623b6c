"""What a study says in words admits its doubt, and as data holds nothing undefined."""

import csv
import io
import json
from dataclasses import replace

import pytest

from nfa.registry.sweeps.arm_difference import sentence
from nfa.registry.sweeps.axis_importance import Importance
from nfa.registry.sweeps.study_figures import study_figures
from nfa.registry.sweeps.study_report import as_json, trials_csv, written
from nfa.registry.sweeps.study_table import ConfirmedArm, best, confirmation
from tests.support.study_tables import arms, classifier, two_objectives

FOUND = {
    "lr": Importance(0.6, 0.4, 0.8, 0.2, 0.005, True),
    "optimizer": Importance(-0.02, -0.1, 0.1, 0.15, 0.6, False),
    "width": Importance(0.1, -0.1, 0.3, 0.2, 0.2, False),
}


def block(text: str, title: str) -> list[str]:
    """Lines of the paragraphs below a title, to the next title."""
    lines = text.splitlines()
    start = lines.index(title) + 1
    end = next((i for i in range(start, len(lines)) if lines[i] and not lines[i].startswith(" ")), len(lines))
    return [line.strip() for line in lines[start:end] if line.strip()]


def test_the_study_its_counts_and_its_best_trial_beside_the_defaults() -> None:
    table = classifier()
    text = written(table, [FOUND], arms(), {"workload": "mlp", "trials": 24}, defaults=0)
    assert text.startswith("digits-lr: lowest val/loss over lr, optimizer, width\n  workload:  mlp\n  trials:    24\n")
    assert [line.split() for line in block(text, "Trials")] == [
        ["finished", "19"], ["pruned", "2"], ["failed", "2"], ["running", "1"],
    ]  # fmt: skip
    head, value, *parameters = [line.split() for line in block(text, "Best trial")]
    chosen = best(table)
    assert chosen
    assert head == ["trial", str(chosen.number), "defaults"]
    assert value == ["val/loss", f"{chosen.values[0]:.5g}", f"{table.rows[0].values[0]:.5g}"]
    assert parameters[1] == ["optimizer", str(chosen.parameters["optimizer"]), "sgd"]
    assert max(map(len, text.splitlines())) <= 120


def test_columns_are_aligned() -> None:
    lines = written(classifier(), [FOUND], arms(), {}).splitlines()
    start = lines.index("Importance of parameters for val/loss") + 1
    assert {line.index("(") for line in lines[start + 1 : start + 4]} == {lines[start].index("95 %")}


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        (-0.1, "best trial, val/loss: better than the defaults by 0.0"),
        (0.1, "best trial, val/loss: worse than the defaults by 0.1"),
        (0.0, "best trial, val/loss: cannot be told apart from the defaults: "),
    ],
)
def test_a_confirmation_is_a_sentence_with_its_interval(shift: float, said: str) -> None:
    first, other = arms(shift)
    text = written(classifier(), [{}], [first, replace(other, name="best trial")], {})
    line = block(text, "Trained again with fresh seeds")[-1]
    assert line.startswith(said)
    assert line.endswith(") over 5 fresh seeds")


def test_the_interval_of_a_verdict_is_of_the_amount_and_in_order() -> None:
    (better,) = confirmation(arms(-0.1), (False,))
    (worse,) = confirmation(arms(-0.1), (True,))
    for found in (better, worse):
        assert found.interval
        ends = (-found.interval.high, -found.interval.low)
        assert (
            sentence(found, "y")
            .partition(" by ")[2]
            .startswith(f"{-found.interval.mean:.4g} ({ends[0]:.4g}, {ends[1]:.4g})")
        )


def test_one_seed_gives_no_verdict() -> None:
    text = written(classifier(), [{}], arms(seeds=1), {})
    line = block(text, "Trained again with fresh seeds")[-1]
    assert line == "trial 9, val/loss: no verdict: 1 seed finished in both, 2 needed"


def test_without_confirmation_or_finished_trials_it_says_so() -> None:
    table = classifier()
    empty = replace(table, rows=tuple(row for row in table.rows if row.state == "failed"))
    text = written(empty, [{}], [], {}, defaults=0)
    assert block(text, "Best trial") == ["none: no finished trial satisfies the constraints"]
    assert block(text, "Trained again with fresh seeds") == ["none: no other point was trained again with the defaults"]
    assert block(text, "Importance of parameters for val/loss") == ["not available: 0 finished trials; 10 are needed"]


def test_importances_are_in_order_with_what_they_say_and_the_rest_with_reasons() -> None:
    table = classifier()
    lines = block(written(table, [FOUND], [], {}), "Importance of parameters for val/loss")[1:]
    assert [line.split()[0] for line in lines] == ["lr", "width", "optimizer"]
    assert [line.endswith("mattered") for line in lines] == [True, False, False]
    assert lines[1].endswith("not beyond chance")
    same = tuple(replace(row, parameters={**row.parameters, "width": 64}) for row in table.rows)
    known = {name: FOUND[name] for name in ("lr", "optimizer")}
    lines = block(written(replace(table, rows=same), [known], [], {}), "Importance of parameters for val/loss")
    assert lines[-1] == "width:  it was 64 in all finished trials"


def test_notes_say_what_is_left_out_only_where_it_applies() -> None:
    said = written(classifier(), [FOUND], arms(), {})
    assert "Importances are computed from finished trials" in said
    assert "selected partly by luck" in said
    assert "comparisons were made" not in said
    assert "Importances are computed from" not in written(classifier(), [{}], arms(), {})
    several = [*arms(), replace(arms()[1], name="other")]
    assert "2 comparisons were made" in written(classifier(), [{}], several, {})


def test_two_objectives_have_a_front_and_their_relation() -> None:
    table = two_objectives()
    text = written(table, [FOUND, {}], [], {}, defaults=0)
    assert text.startswith("width-cost: highest val/accuracy and lowest seconds over")
    assert "Spearman's correlation -" in "\n".join(block(text, "Trade-off"))
    assert "finished, but break a constraint" in text
    assert block(text, "Importance of parameters for seconds") == ["not computed"]


def test_trials_are_lines_that_read_back() -> None:
    table = classifier()
    rows = list(csv.DictReader(io.StringIO(trials_csv(replace(table, rows=table.rows[::-1])))))
    assert [int(row["trial"]) for row in rows] == list(range(24))
    for row, original in zip(rows, table.rows, strict=True):
        assert row["state"] == original.state
        assert float(row["lr"]) == original.parameters["lr"]
        assert row["val/loss"] == (str(original.values[0]) if original.values else "")
    assert rows[5]["error"] == "loss became inf"
    assert (rows[5]["feasible"], rows[5]["last_step"], rows[5]["seconds"]) == ("", "2", "")


def test_data_hold_no_nan_and_no_keys_for_what_is_undefined() -> None:
    table = two_objectives()
    found = as_json(table, [FOUND, {}], [])
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    assert set(found["best"]) == {"val/accuracy", "seconds"}
    assert found["trade_off"]["correlation"] < 0
    assert "seconds" not in found["importances"] or found["importances"]["seconds"] == {}
    single = as_json(classifier(), [FOUND], arms())
    assert "trade_off" not in single
    assert "pareto_front" not in single
    assert single["confirmation"][1]["differences"]["val/loss"]["verdict"] == "better"
    assert "differences" not in single["confirmation"][0]


def test_an_arm_that_never_finished_has_no_mean() -> None:
    pair = [arms()[0], ConfirmedArm("best", {}, ((None,) * 5,), arms()[0].seeds)]
    found = as_json(classifier(), [{}], pair)["confirmation"][1]
    assert found["means"] == {}
    assert found["differences"]["val/loss"] == {
        "seeds": 0, "verdict": "no verdict: 0 seeds finished in both, 2 needed",
    }  # fmt: skip
    assert "none finished" in written(classifier(), [{}], pair, {})


def test_each_training_of_a_confirmation_has_its_own_number_and_a_failed_one_is_called_so() -> None:
    first, other = arms()
    broken = replace(other, values=((*other.values[0][:4], None),), failed=other.seeds[4:])
    lines = block(written(classifier(), [{}], [first, broken], {}), "Trained again with fresh seeds")
    rows = {line.split()[0]: line.split()[1:] for line in lines if line[:2] == "17"}
    expected = [f"{value:.5g}" for value in first.values[0]]
    assert [row[0] for row in rows.values()] == expected
    assert list(rows) == [str(seed) for seed in first.seeds]
    assert rows["1722"][1] == "failed"
    assert "1 of 5 trainings of trial 9 failed" in lines[-1]
    assert "better" not in lines[-1]
    found = as_json(classifier(), [{}], [first, broken])["confirmation"][1]
    assert (found["failed_seeds"], found["by_seed"]["1722"], found["means"]) == ([1722], {}, {})
    assert found["by_seed"]["1718"] == {"val/loss": other.values[0][0]}


def test_all_figures_that_are_not_empty_have_names() -> None:
    assert set(study_figures(classifier(), [FOUND], defaults=0)) == {
        "optimization_history", "param_importances", "intermediate_values", "slices", "contour",
    }  # fmt: skip
    assert set(study_figures(two_objectives(), [FOUND, {}])) == {
        "optimization_history_1", "optimization_history_2", "param_importances", "pareto_front",
        "slices_1", "slices_2", "contour_1", "contour_2",
    }  # fmt: skip
