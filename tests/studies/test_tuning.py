"""What a study says holds against planted truths, brute force and closed forms."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa import reference
from nfa.registry.sweeps import axis_importance
from nfa.registry.sweeps.axis_importance import Importance, conventions, importances, why_no_importances
from nfa.registry.sweeps.space import Choice, Range
from nfa.registry.sweeps.study_table import (
    ConfirmedArm,
    StudyTable,
    TrialRow,
    at_edges,
    best,
    best_so_far,
    confirmation,
    finished,
    mean_of,
    number_of,
    pareto_front,
    trade_off,
)
from tests.support.study_tables import LR, OPTIMIZER, arms, classifier, planted, two_objectives

X1, X2 = Range("x1", -10, 10), Range("x2", -10, 10)


@pytest.fixture(autouse=True, scope="module")
def few_trees() -> Iterator[None]:
    """What is promised of the estimates holds for any number of trees; this is faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(axis_importance, "TREES", 5)
        yield


def table_of(*values: tuple[float, ...], maximise: tuple[bool, ...] = (False, False)) -> StudyTable:
    rows = tuple(TrialRow(number, "finished", {}, each) for number, each in enumerate(values))
    return StudyTable("t", ("a", "b", "c")[: len(maximise)], maximise, (), rows)


def first(parameters: Mapping[str, Any], random: np.random.Generator) -> float:
    return float(parameters["x1"] + 0.05 * random.normal())


def noise(_: Mapping[str, Any], random: np.random.Generator) -> float:
    return float(random.normal())


def test_only_feasible_finished_trials_count() -> None:
    table = table_of((3.0, 0.0), (1.0, 0.0), (2.0, 0.0))
    rows = (replace(table.rows[0]), replace(table.rows[1], feasible=False), table.rows[2], TrialRow(3, "pruned", {}))
    table = replace(table, rows=rows)
    assert [row.number for row in finished(table)] == [0, 2]
    found = best(table)
    assert found
    assert found.number == 2
    assert [row.number for row in pareto_front(table)] == [2]


def test_best_follows_the_direction_and_of_equal_trials_is_the_first() -> None:
    values = ((1.0, 5.0), (3.0, 5.0), (3.0, 4.0))
    for maximise, numbers in (((True, True), (1, 0)), ((False, False), (0, 2))):
        found = [best(table_of(*values, maximise=maximise), index) for index in (0, 1)]
        assert tuple(row.number for row in found if row) == numbers
    assert best(table_of()) is None


def test_a_trial_is_found_by_its_parameters_and_a_finished_one_is_preferred() -> None:
    table = planted(first, (X1, X2), trials=4)
    wanted = table.rows[2].parameters
    assert number_of(table, {**wanted, "epochs": 3}) == 2
    again = TrialRow(1, "failed", wanted)
    assert number_of(replace(table, rows=(again, *table.rows[2:])), wanted) == 2
    assert number_of(replace(table, rows=(again,)), wanted) == 1
    assert number_of(table, {**wanted, "x2": -1.0}) is None
    assert number_of(replace(table, rows=(TrialRow(0, "waiting", {}),)), wanted) is None


def test_best_so_far_never_gets_worse_and_is_by_number() -> None:
    table = table_of((3.0,), (1.0,), (2.0,), (0.5,), maximise=(False,))
    assert best_so_far(replace(table, rows=table.rows[::-1])) == [(0, 3.0), (1, 1.0), (2, 1.0), (3, 0.5)]
    assert best_so_far(replace(table, maximise=(True,))) == [(0, 3.0), (1, 3.0), (2, 3.0), (3, 3.0)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=25), st.tuples(*[st.booleans()] * 3), st.integers(1, 3))
def test_the_front_is_what_the_definition_says(
    values: list[tuple[int, ...]], ways: tuple[bool, ...], objectives: int
) -> None:
    cut = [tuple(float(value) for value in each[:objectives]) for each in values]
    costs = [[-v if more else v for v, more in zip(each, ways, strict=False)] for each in cut]
    found = pareto_front(table_of(*cut, maximise=ways[:objectives]))
    assert sorted(row.number for row in found) == reference.non_dominated(costs)
    assert [row.values[0] for row in found] == sorted(row.values[0] for row in found)


def test_what_decides_is_found_and_what_does_nothing_is_not() -> None:
    found = importances(planted(first, (X2, X1)), resamples=39)
    assert list(found) == ["x2", "x1"]
    assert found["x1"].mattered
    assert found["x1"].p == pytest.approx(1 / 40)
    assert found["x1"].value > 0.8
    assert found["x1"].low > found["x1"].null
    assert not found["x2"].mattered
    assert abs(found["x2"].value) < 0.1
    assert all(one.low <= one.value <= one.high for one in found.values())


def test_noise_is_seldom_said_to_matter() -> None:
    """Of 40 axes that do nothing, 2 are expected at 5 %; 7 or more have a probability of 0.3 %."""
    wrong = sum(
        one.mattered
        for seed in range(20)
        for one in importances(planted(noise, (X1, X2), trials=16, seed=seed), resamples=19).values()
    )
    assert wrong <= 6


def test_axes_that_only_matter_together_are_found() -> None:
    """y = sign of (x1 − ½)(x2 − ½): neither alone explains anything, so a main effect would not show it."""
    table = planted(lambda p, _: float((p["x1"] - 0.5) * (p["x2"] - 0.5) > 0), (X1, X2), trials=60)
    found = importances(table, resamples=19)
    assert found["x1"].mattered
    assert found["x2"].mattered


def test_categories_count_by_their_values() -> None:
    rank = {"sgd": 0.5, "adam": 0.0, "muon": 1.0}
    found = importances(planted(lambda p, _: rank[p["optimizer"]], (OPTIMIZER, X2)), resamples=19)
    assert found["optimizer"].mattered
    assert not found["x2"].mattered


def test_a_log_axis_enters_as_its_logarithm() -> None:
    table = planted(lambda p, random: float(np.log10(p["lr"]) + 0.1 * random.normal()), (LR, X2))
    logged = tuple(
        replace(row, parameters={**row.parameters, "lr": math.log(row.parameters["lr"])}) for row in table.rows
    )
    as_range = replace(table, axes=(Range("lr", -100, 100), X2), rows=logged)
    assert importances(table, resamples=19) == importances(as_range, resamples=19)
    linear = replace(table, axes=(Range("lr", -100, 100), X2))
    assert importances(table, resamples=19) != importances(linear, resamples=19)


@pytest.fixture(scope="module")
def mixed() -> tuple[StudyTable, dict[str, Importance]]:
    def value(p: Mapping[str, Any], random: np.random.Generator) -> float:
        return float(np.log10(p["lr"]) + (p["optimizer"] == "adam") + 0.2 * random.normal())

    table = planted(value, (LR, OPTIMIZER))
    return table, importances(table, resamples=19)


def test_orders_of_rows_and_axes_names_of_choices_and_units_change_nothing(
    mixed: tuple[StudyTable, dict[str, Importance]],
) -> None:
    table, found = mixed
    assert importances(replace(table, rows=table.rows[::-1]), resamples=19) == found
    assert importances(replace(table, axes=table.axes[::-1]), resamples=19) == found
    names = {"sgd": 1, "adam": 2, "muon": 3}
    rows = [
        replace(row, parameters={**row.parameters, "optimizer": names[row.parameters["optimizer"]]})
        for row in table.rows
    ]
    renamed = replace(table, axes=(LR, Choice("optimizer", (1, 2, 3))), rows=tuple(rows))
    assert importances(renamed, resamples=19) == found
    doubled = tuple(replace(row, values=(4 * row.values[0],)) for row in table.rows)
    assert importances(replace(table, rows=doubled), resamples=19) == found


def test_the_seed_and_a_bent_objective_do_change_the_numbers(mixed: tuple[StudyTable, dict[str, Importance]]) -> None:
    table, found = mixed
    assert importances(table, resamples=19, seed=1) != found
    bent = tuple(replace(row, values=(math.exp(row.values[0]),)) for row in table.rows)
    assert importances(replace(table, rows=bent), resamples=19)["lr"].value != pytest.approx(
        found["lr"].value, abs=1e-3
    )


def test_what_cannot_be_said_is_absent_with_its_reason() -> None:
    few = planted(first, (X1, X2), trials=9)
    assert importances(few) == {}
    assert why_no_importances(few) == dict.fromkeys(("x1", "x2"), "9 finished trials; 10 are needed")
    flat = planted(lambda *_: 1.0, (X1, X2))
    assert importances(flat) == {}
    assert set(why_no_importances(flat).values()) == {"y was equal in all trials"}
    table = planted(first, (X1, X2), trials=12)
    still = replace(table, rows=tuple(replace(row, parameters={**row.parameters, "x2": 0.5}) for row in table.rows))
    assert list(importances(still, resamples=19)) == ["x1"]
    assert why_no_importances(still) == {"x2": "it was 0.5 in all finished trials"}
    without = replace(table.rows[0], parameters={"x1": 0.3})
    assert why_no_importances(replace(table, rows=(without, *table.rows[1:]))) == {
        "x2": "1 of the 12 finished trials do not have it"
    }
    assert why_no_importances(table) == {}


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 19 are needed"):
        importances(planted(first, (X1, X2)), resamples=18)
    assert conventions(39, 2)["resamples"] == 39


def test_a_confirmation_pairs_the_seeds() -> None:
    """Differences 1 and 3: mean 2 ± 12.706; what the seeds share cancels."""
    defaults = ConfirmedArm("defaults", {}, ((100.0, -50.0, None, 1.0),), (1, 2, 3, 4))
    other = ConfirmedArm("best", {}, ((101.0, -47.0, 5.0, None),), (1, 2, 3, 4))
    (found,) = confirmation([defaults, other], (False,))
    assert found.interval
    assert (found.interval.mean, found.seeds) == (2.0, 2)
    assert found.interval.high == pytest.approx(14.706204736174694)
    assert found.verdict == "cannot be told apart"
    assert mean_of(other, 0) == pytest.approx(59 / 3)


@pytest.mark.parametrize(
    ("shift", "maximise", "verdict"),
    [(-0.1, False, "better"), (-0.1, True, "worse"), (0.1, False, "worse"), (0.0, False, "cannot be told apart")],
)
def test_only_an_interval_without_zero_gives_a_verdict(shift: float, maximise: bool, verdict: str) -> None:
    (found,) = confirmation(arms(shift), (maximise,))
    assert found.verdict == verdict


def test_without_pairs_there_is_no_number() -> None:
    one, other = ConfirmedArm("defaults", {}, ((1.0, None),), (1, 2)), ConfirmedArm("best", {}, ((None, 2.0),), (1, 2))
    (found,) = confirmation([one, other], (False,))
    assert found.interval is None
    assert found.verdict == "no verdict: 0 seeds finished in both, 2 needed"
    assert mean_of(ConfirmedArm("x", {}, ((None,),), (1,)), 0) is None


@pytest.mark.parametrize("failing", [0, 1])
def test_where_a_training_failed_the_lucky_ones_decide_nothing(failing: int) -> None:
    """Without the seed that diverged, the arm would be better by 1 in all that are left."""
    pair = [
        ConfirmedArm("defaults", {}, ((3.0, 3.1, 3.2),), (1, 2, 3)),
        ConfirmedArm("best", {}, ((2.0, 2.1, 2.2),), (1, 2, 3)),
    ]
    (before,) = confirmation(pair, (False,))
    assert before.verdict == "better"
    pair[failing] = replace(pair[failing], values=((*pair[failing].values[0][:2], None),), failed=(3,))
    (found,) = confirmation(pair, (False,))
    assert (found.interval, mean_of(pair[failing], 0)) == (None, None)
    assert found.verdict.startswith(f"no verdict: 1 of 3 trainings of {pair[failing].name} failed")
    assert mean_of(pair[1 - failing], 0) is not None


def test_a_planted_trade_off_is_seen_whatever_the_directions() -> None:
    values = [(float(i), float(-i) + 0.1 * (i % 3)) for i in range(12)]
    against = trade_off(table_of(*values))
    assert against
    assert against.correlation < -0.9 < 0 < against.front
    assert "bad for the other" in against.statement
    together = trade_off(table_of(*values, maximise=(False, True)))
    assert together
    assert together.correlation == pytest.approx(-against.correlation)
    assert together.front == 1
    assert "no trade-off" in together.statement


def test_unrelated_objectives_are_not_said_to_conflict() -> None:
    random = np.random.default_rng(3)
    found = trade_off(table_of(*(tuple(map(float, each)) for each in random.normal(size=(30, 2)))))
    assert found
    assert found.low < 0 < found.high
    assert "no significant agreement" in found.statement


def test_no_relation_where_it_is_undefined() -> None:
    assert trade_off(classifier()) is None
    assert trade_off(table_of(*((1.0, float(i)) for i in range(12)))) is None
    assert trade_off(table_of(*((float(i), float(i)) for i in range(9)))) is None
    assert trade_off(two_objectives()) is not None


@pytest.mark.parametrize(
    ("log", "ends", "value", "at_edge"),
    [
        (True, (1e-2, 3.0), 2.934, True),
        (True, (1e-2, 3.0), 0.5, False),
        (True, (1e-4, 1.0), 1.4e-4, True),
        (False, (1e-4, 1.0), 0.1, False),  # as a logarithm it would be far from the lower end either way
        (False, (0.0, 0.5), 0.02, True),
        (False, (0.0, 0.5), 0.03, False),
    ],
)
def test_a_best_trial_in_the_outermost_twentieth_is_at_the_edge(
    log: bool, ends: tuple[float, float], value: float, at_edge: bool
) -> None:
    row = TrialRow(0, "finished", {"lr": value}, (1.0,))
    table = StudyTable("s", ("y",), (False,), (Range("lr", *ends, log=log), OPTIMIZER), (row,))
    assert at_edges(table, row) == (["lr"] if at_edge else [])


def test_choices_and_trials_without_the_parameter_have_no_edge() -> None:
    axes = (Range("lr", 0.1, 1.0, log=True), Choice("rank", (1, 2)))
    row = TrialRow(0, "finished", {"rank": 1}, (1.0,))
    assert at_edges(StudyTable("s", ("y",), (False,), axes, (row,)), row) == []
