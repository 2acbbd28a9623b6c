"""The grammar for lists of epochs: what it names, and what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfa.checkpoint_schedule import fit, parse, phase_boundary
from nfa.errors import Refusal


@pytest.mark.parametrize(
    ("text", "epochs"),
    [
        ("0", [0]),
        ("3,1,2,1", [1, 2, 3]),
        ("2-5", [2, 3, 4, 5]),
        ("4-4", [4]),
        ("0-10/5", [0, 5, 10]),
        ("0-11/5", [0, 5, 10]),
        ("0-3/100", [0]),
        (" 0-2 , 8 ", [0, 1, 2, 8]),
        ("all", [0, 1, 2, 3]),
        (" all ", [0, 1, 2, 3]),
        ("0-20,40,60,80,100", [*range(21), 40, 60, 80, 100]),
    ],
)
def test_texts_name_these_epochs(text, epochs):
    assert parse(text, last=3) == epochs


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "a", "-1", "1-", "-", "1--2", "1.5", "1/2", "1-2/", "all,1", "0x2", "1 2", "12345678"]
)
def test_what_is_outside_the_grammar_is_refused_with_the_grammar(text):
    with pytest.raises(Refusal, match=r"(?s)schedule .*allowed: numbers, a-b, a-b/step, comma-separated"):
        parse(text, last=100)


@pytest.mark.parametrize("part", ["5-3", "1-9/0"])
def test_an_empty_range_and_a_zero_step_are_refused_where_they_stand(part):
    with pytest.raises(Refusal, match=f"(?s)at '{part}'.*a ≤ b and a step of at least 1"):
        parse(f"0,{part},7", last=100)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 9)), min_size=1, max_size=4))
def test_any_list_of_ranges_is_the_sorted_union(parts):
    text = ",".join(f"{first}-{first + more}/{step}" for first, more, step in parts)
    named = {epoch for first, more, step in parts for epoch in range(first, first + more + 1, step)}
    assert parse(text, last=0) == sorted(named)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=6), st.integers(1, 100))
def test_a_run_keeps_what_fits_and_always_the_first_and_last_epoch(epochs, last):
    assert fit(",".join(map(str, epochs)), last) == sorted({0, last} | {epoch for epoch in epochs if epoch <= last})


def test_the_reference_schedule_has_25_checkpoints():
    assert len(fit("0-20,40,60,80,100", 100)) == 25


@pytest.mark.parametrize(
    ("epochs", "boundary"),
    [
        ([*range(21), 40, 60], 20),
        ([0, 1, 5], 1),
        (list(range(9)), None),
        ([0, 5, 10], None),
        ([0, 5, 6, 7], None),
        ([0, 3], None),
        ([0, 1], None),
        ([0], None),
    ],
)
def test_the_phase_boundary_is_the_last_epoch_before_a_gap(epochs, boundary):
    assert phase_boundary(epochs) == boundary
