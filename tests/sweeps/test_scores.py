"""Objectives and constraints as numbers of series, against the reference, row by row."""

import math
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfa import reference
from nfa.registry.sweeps import scores
from nfa.registry.sweeps.objectives import Constraint, StudyObjective

VALUES = st.floats(-1e6, 1e6, allow_nan=False)
SERIES = st.dictionaries(
    st.sampled_from(["val/loss", "layer_0/agop_nfm", "layer_1/agop_nfm", "layer_2/agop_nfm"]),
    st.dictionaries(st.integers(0, 12), VALUES, min_size=1),
    min_size=1,
)


@given(
    SERIES,
    st.sampled_from(["val/loss", "layer_*/agop_nfm", "layer_1/agop_nfm", "*"]),
    st.booleans(),
    st.sampled_from(["last", "best", "mean:1", "mean:3", "mean:100"]),
)
def test_an_objective_is_that_of_the_reference(
    series: dict[str, dict[int, float]], key: str, maximise: bool, how: str
) -> None:
    name, _, last = how.partition(":")
    found = scores.score(series, StudyObjective(key, maximise, name, int(last or 1)))
    rows = [(one, step, value) for one, of_key in series.items() for step, value in of_key.items()]
    wanted = [one for one in series if fnmatchcase(one, key)]
    expected = reference.objective(rows, wanted, how, more_is_better=maximise)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_a_step_that_one_of_a_globs_keys_lacks_does_not_count() -> None:
    series = {"layer_0/agop_nfm": {0: 1.0, 5: 0.2}, "layer_1/agop_nfm": {0: 0.5}}
    assert scores.by_step(series, "layer_*/agop_nfm") == {0: 0.75}
    apart = {"layer_0/agop_nfm": {0: 1.0}, "layer_1/agop_nfm": {5: 1.0}}
    assert scores.score(apart, StudyObjective("layer_*/*", True)) is None


def test_an_objective_without_a_value_is_absent_not_zero() -> None:
    assert scores.score({}, StudyObjective("val/loss", False)) is None
    assert scores.excess({"val/loss": {0: 1.0}}, Constraint("val/accuracy", "<", 1.0)) is None


@given(VALUES, VALUES, st.sampled_from(list(scores.HOLDS)))
def test_the_excess_is_above_zero_exactly_where_a_constraint_does_not_hold(
    value: float, bound: float, sign: str
) -> None:
    beyond = scores.excess({"a": {0: 99.0, 7: value}}, Constraint("a", sign, bound))
    assert beyond is not None
    assert (beyond <= 0) == scores.HOLDS[sign](value, bound)


def test_a_strict_bound_is_not_kept_by_the_value_on_it() -> None:
    on_it = {"a": {1: 10.0}}
    assert scores.excess(on_it, Constraint("a", "<", 10)) == math.ulp(0.0)
    assert scores.excess(on_it, Constraint("a", "<=", 10)) == 0


def test_means_over_seeds_have_their_standard_error_beside_them() -> None:
    found = scores.means([{"a": {0: 1.0, 1: 2.0}, "b": {0: 5.0}}, {"a": {0: 3.0, 2: 1.0}}])
    assert found == {"a": {0: 2.0}, "a_se": {0: pytest.approx(1.0)}}
    assert scores.means([{"a": {0: 1.0}}]) == {"a": {0: 1.0}}


def test_the_standard_error_over_seeds_takes_the_place_of_that_over_examples_and_levels_have_none() -> None:
    runs = [{"a": {0: value}, "a_se": {0: 0.5}, "a_chance": {0: value}} for value in (1.0, 3.0)]
    assert scores.means(runs) == {"a": {0: 2.0}, "a_se": {0: pytest.approx(1.0)}, "a_chance": {0: 2.0}}
