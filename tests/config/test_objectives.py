"""The grammar of objectives and constraints."""

import pytest

from nfa.errors import Refusal
from nfa.registry.sweeps.objectives import (
    Constraint,
    StudyObjective,
    check_logged,
    keys_of,
    parse_constraints,
    parse_objectives,
    split_keys,
)

LOGGED = ["val/loss", "val/accuracy", "layer_0/agop_nfm", "layer_1/agop_nfm", "flow/block_*/update_ratio"]


@pytest.mark.parametrize(
    ("key", "maximise"),
    [
        ("val/loss", False), ("train/step_loss", False), ("val/loss_pearson", False), ("val/pearson", True),
        ("test/accuracy", True), ("layer_*/agop_nfm", True), ("layer_0/agop_nfm_init_removed", True),
        ("test/undefined_windows", False),
    ],
)  # fmt: skip
def test_direction_is_known_where_the_key_says_what_is_good(key: str, maximise: bool) -> None:
    assert parse_objectives([key], "auto", "last") == (StudyObjective(key, maximise),)


def test_direction_is_asked_for_where_both_may_be_wanted() -> None:
    with pytest.raises(Refusal, match="minimize or maximize, because the key does not tell which is better"):
        parse_objectives(["flow/grad_norm"], "auto", "last")
    assert parse_objectives(["flow/grad_norm"], "maximize", "last")[0].maximise


def test_directions_and_reductions_are_one_for_all_or_one_each() -> None:
    found = parse_objectives(["val/loss", "val/accuracy"], "auto,minimize", "best,mean:3")
    assert found == (StudyObjective("val/loss", False, "best"), StudyObjective("val/accuracy", False, "mean", 3))
    assert {one.reduction for one in parse_objectives(["val/loss", "val/accuracy"], "auto", "best")} == {"best"}
    with pytest.raises(Refusal, match="for 3 objectives"):
        parse_objectives(["val/loss", "val/accuracy", "train/loss"], "auto,auto", "last")


@pytest.mark.parametrize("text", ["mean", "mean:0", "mean:-1", "mean:x", "median", ""])
def test_what_is_no_reduction_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="last, best, or mean:K"):
        parse_objectives(["val/loss"], "auto", text)


def test_a_direction_with_a_slip_is_refused_with_the_right_word() -> None:
    with pytest.raises(Refusal, match="direction=minimize"):
        parse_objectives(["val/loss"], "minimise", "last")


@pytest.mark.parametrize("text", ["", "val/loss,", "val/loss,val/loss"])
def test_objectives_are_different_keys(text: str) -> None:
    with pytest.raises(Refusal, match="distinct metric keys"):
        split_keys(text)


def test_constraints_have_a_key_a_sign_and_a_number() -> None:
    found = parse_constraints("flow/grad_norm<10, val/accuracy>=0.9,val/loss<=1e-3")
    assert found == (
        Constraint("flow/grad_norm", "<", 10), Constraint("val/accuracy", ">=", 0.9), Constraint("val/loss", "<=", 1e-3)
    )  # fmt: skip
    assert [str(one) for one in found] == ["flow/grad_norm<10", "val/accuracy>=0.9", "val/loss<=0.001"]
    assert parse_constraints("") == ()


@pytest.mark.parametrize("text", ["flow/grad_norm", "<10", "a<", "a<b", "a<1<2", "a==1", "a<nan", "a<inf", "a<1,,b<2"])
def test_what_is_no_constraint_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Refusal, match="flow/grad_norm<10"):
        parse_constraints(text)


def test_a_glob_names_all_its_keys_and_a_key_itself() -> None:
    assert keys_of("layer_*/agop_nfm", LOGGED) == ["layer_0/agop_nfm", "layer_1/agop_nfm"]
    assert keys_of("val/loss", LOGGED) == ["val/loss"]
    assert keys_of("flow/block_7/update_ratio", LOGGED) == ["flow/block_*/update_ratio"]
    assert keys_of("layer_*/nothing", LOGGED) == []


def test_a_key_that_no_run_logs_is_refused_with_near_names_and_what_is_logged() -> None:
    with pytest.raises(Refusal, match=r"did you mean val/loss") as refused:
        check_logged("objective", "val/los", LOGGED)
    assert "layer_*/agop_nfm" in str(refused.value)
    with pytest.raises(Refusal, match="no run logs it"):
        check_logged("objective", "test_*", LOGGED)
