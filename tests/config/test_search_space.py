"""The grammar of search spaces and of known points."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfa.errors import Refusal
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.sweeps.space import Choice, Range, parse_points, parse_space, written
from nfa.registry.typed_values import assignments


def test_ranges_and_choices_take_the_type_of_their_parameter() -> None:
    space = parse_space("lr=log:1e-5:1,width=32:128,weight_decay=0|1e-3,optimizer=sgd|adam", TrainConfig)
    assert space == {
        "lr": Range("lr", 1e-5, 1.0, log=True),
        "width": Range("width", 32, 128, whole=True),
        "weight_decay": Choice("weight_decay", (0.0, 1e-3)),
        "optimizer": Choice("optimizer", ("sgd", "adam")),
    }
    assert all(isinstance(end, int) for end in space["width"].ends)
    assert isinstance(space["weight_decay"].ends[0], float)


def test_true_and_false_are_choices_of_a_switch() -> None:
    assert parse_space("use_se=true|false", TrainEEGConfig)["use_se"].ends == (True, False)


def test_whole_numbers_of_a_parameter_that_may_be_auto() -> None:
    assert parse_space("d_model=16|32,dropout=0:0.5", TrainEEGConfig)["d_model"].ends == (16, 32)


def test_a_choice_may_hold_commas() -> None:
    assert parse_space("schedule=0-5,10|0,10", TrainConfig)["schedule"].ends == ("0-5,10", "0,10")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr=1:1", "an empty range"),
        ("lr=1:0.1", "do: lr=0.1:1.0"),
        ("lr=log:0:1", "logarithmic range above 0"),
        ("lr=log:1e-3:1/2", "without log"),
        ("width=8:64/100", "a step above 0"),
        ("lr=0.1", "do: fixed=lr=0.1 for one value"),
        ("lr=1:2:3", "correct lr=1:2:3"),
        ("lr=log:1", "correct lr=log:1"),
        ("width=8:9.5", "a whole number"),
        ("lr=nan:1", "finite numbers"),
        ("lr=auto:1", "finite numbers"),
        ("optimizer=sgd", "values of optimizer separated by"),
        ("width=8|8", "each value once"),
        ("lr=1e-3:1,lr=1:2", "given twice"),
        ("=1:2", "NAME=VALUE"),
        ("1:2", "NAME=VALUE"),
        ("lrr=1:2", "did you mean lr?"),
    ],
)
def test_what_is_no_space_is_refused_with_a_remedy(text: str, message: str) -> None:
    with pytest.raises(Refusal, match=message.replace("?", r"\?")):
        parse_space(text, TrainConfig)


@given(low=st.integers(1, 50), span=st.integers(1, 60), step=st.integers(1, 9))
def test_listed_values_are_those_that_the_range_holds(low: int, span: int, step: int) -> None:
    axis = Range("width", low, low + span, step=min(step, span), whole=True)
    listed = axis.listed
    assert listed is not None
    assert list(listed) == [value for value in range(low - 5, low + span + 5) if axis.holds(value)]


def test_a_range_without_a_step_lists_only_whole_numbers() -> None:
    assert Range("width", 3, 5, whole=True).listed == (3, 4, 5)
    assert Range("lr", 0.1, 0.5).listed is None
    assert Range("width", 2, 64, log=True, whole=True).listed is None


def test_steps_of_fractions_are_held_in_spite_of_rounding() -> None:
    axis = Range("dropout", 0.0, 0.5, step=0.1)
    listed = axis.listed
    assert listed is not None
    assert len(listed) == 6
    assert all(axis.holds(value) for value in (*listed, 0.3))
    assert not axis.holds(0.25)


def test_a_choice_holds_its_values_and_nothing_that_only_equals_them() -> None:
    assert Choice("use_se", (True,)).holds(True)
    assert not Choice("use_se", (True,)).holds(1)
    assert not Choice("rank", (1, 4)).holds(True)
    assert not Range("rank", 0, 4, whole=True).holds(True)


def test_an_axis_as_written_is_read_as_itself() -> None:
    text = "lr=log:1e-5:1,dropout=0:0.5/0.1,rank=4|8|16,init=random|pissa"
    space = parse_space(text, TrainLoraConfig)
    assert parse_space(",".join(map(written, space.values())), TrainLoraConfig) == space


DEFAULTS = {"lr": 0.1, "width": 1024}


def test_points_are_defaults_and_what_is_typed() -> None:
    space = parse_space("lr=log:1e-5:1,width=32:64", TrainConfig)
    points = parse_points("lr=0.01,width=64; defaults;width=32", space, TrainConfig, DEFAULTS)
    assert points == [{"lr": 0.01, "width": 64}, {"lr": 0.1}, {"width": 32}]
    assert parse_points("none", space, TrainConfig, DEFAULTS) == []


@pytest.mark.parametrize(
    ("text", "message"), [("lr=5", "a value of lr"), ("depth=2", "'depth'"), ("lr=x", "a number"), ("lr", "NAME=VALUE")]
)
def test_points_outside_the_space_are_refused(text: str, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        parse_points(text, parse_space("lr=log:1e-5:1", TrainConfig), TrainConfig, DEFAULTS)


@given(
    st.dictionaries(
        st.sampled_from([field.name for field in dataclasses.fields(TrainConfig)]),
        st.lists(st.sampled_from(["0-5", "10", "a", "1e-3"]), min_size=1, max_size=3),
    )
)
def test_assignments_give_back_what_was_joined(parts: dict[str, list[str]]) -> None:
    text = ",".join(f"{name}={','.join(pieces)}" for name, pieces in parts.items())
    assert assignments("fixed", text) == {name: ",".join(pieces) for name, pieces in parts.items()}


def test_a_piece_without_a_sign_continues_the_value_before_it_only() -> None:
    assert assignments("fixed", "epochs=2,schedule=0-5,10,width=32")["schedule"] == "0-5,10"
    for text in itertools.chain(["10,epochs=2", "epochs=", "=2", "epochs=1,epochs=2"]):
        with pytest.raises(Refusal):
            assignments("fixed", text)
