"""Ratios, verdicts, targets, real and cosmetic remedies: values, edges, and nothing where nothing was measured."""

import dataclasses
import math

import pytest

from nfa.parameter_groups import ParameterGroups
from nfa.studies.gradient_flow import (
    RATIOS,
    Remedy,
    RuleOfThumb,
    change_verdict,
    gradient_flow,
    ratio_verdict,
    remedy,
    targets,
    without_built_in,
)

GROUPS = ParameterGroups({name: [] for name in ("in", "mid", "last", "out")}, "in", "last", "out")
GRADIENTS = {"in": 0.2, "mid": 9.0, "last": 0.6, "out": 0.4}
UPDATES = {f"flow/{group}/update_ratio": value for group, value in {"in": 3.0, "last": 7.0, "out": 2.0}.items()}


def test_every_series_has_its_key_and_every_ratio_its_parts() -> None:
    found = gradient_flow(GRADIENTS, {"in": 0.05}, {**UPDATES, "flow/grad_norm": 4.0, "val/pearson": 0.1}, GROUPS)
    assert found == {
        **{f"flow/{group}/grad_rms": value for group, value in GRADIENTS.items()},
        "flow/in/weight_change": 0.05,
        **UPDATES,
        "flow/grad_norm": 4.0,
        "val/pearson": 0.1,
        "flow/front_output_ratio": pytest.approx(0.5),
        "flow/back_output_ratio": pytest.approx(1.5),
        "flow/front_output_update_ratio": pytest.approx(1.5),
    }


@pytest.mark.parametrize("part", ["in", "out"])
def test_a_ratio_without_one_of_its_parts_is_absent(part: str) -> None:
    fewer = {group: value for group, value in GRADIENTS.items() if group != part}
    updates = {key: value for key, value in UPDATES.items() if part not in key}
    assert "flow/front_output_ratio" not in gradient_flow(fewer, {}, UPDATES, GROUPS)
    assert "flow/front_output_update_ratio" not in gradient_flow(GRADIENTS, {}, updates, GROUPS)
    assert ("flow/back_output_ratio" in gradient_flow(fewer, {}, {}, GROUPS)) is (part == "in")


def test_a_ratio_to_nothing_is_absent_and_a_ratio_of_nothing_is_zero() -> None:
    none = gradient_flow({**GRADIENTS, "out": 0.0}, {}, {**UPDATES, "flow/out/update_ratio": 0.0}, GROUPS)
    assert not {f"flow/{name}" for name in RATIOS} & set(none)
    assert gradient_flow({**GRADIENTS, "in": 0.0}, {}, {}, GROUPS)["flow/front_output_ratio"] == 0
    assert "flow/front_output_ratio" not in gradient_flow({"in": 1e300, "out": 1e-300}, {}, {}, GROUPS)


@pytest.mark.parametrize(
    "groups",
    [
        ParameterGroups(GROUPS.names, "in", "last", None),  # blocks without a head
        ParameterGroups(GROUPS.names, "out", None, "out"),  # one part alone
        ParameterGroups({}, None, None, None),
    ],
)
def test_where_there_is_no_front_or_no_output_there_are_no_ratios(groups: ParameterGroups) -> None:
    assert not {f"flow/{name}" for name in RATIOS} & set(gradient_flow(GRADIENTS, {}, UPDATES, groups))


def test_nothing_measured_is_nothing_said() -> None:
    assert gradient_flow({}, {}, {}, GROUPS) == {}


# ---- verdicts


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (0.0, "vanishing"),
        (math.nextafter(0.01, 0), "vanishing"),
        (0.01, "weak"),
        (math.nextafter(0.1, 0), "weak"),
        (0.1, "moderate"),
        (0.5, "moderate"),
        (math.nextafter(0.5, 1), "strong"),
        (1e9, "strong"),
        (None, "not measured"),
    ],
)
def test_verdicts_of_a_ratio_at_their_edges(ratio: float | None, verdict: str) -> None:
    assert ratio_verdict(ratio) == verdict


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (0.0, "almost unchanged"),
        (math.nextafter(0.01, 0), "almost unchanged"),
        (0.01, "changed"),
        (2.0, "changed"),
        (None, "not measured"),
    ],
)
def test_verdicts_of_a_change_at_their_edge(change: float | None, verdict: str) -> None:
    assert change_verdict(change) == verdict


KEYS = ("flow/front_output_ratio", "flow/in/weight_change", "flow/grad_norm")
NEAR = [  # not met, met
    (0.1, math.nextafter(0.1, 1)),
    (0.01, math.nextafter(0.01, 1)),
    (math.nextafter(1, 0), 1.0),
]


@pytest.mark.parametrize("place", range(3))
def test_each_target_at_its_edge_and_unmeasured_says_nothing_about_the_others(place: int) -> None:
    for value, said in zip((*NEAR[place], None), ("not met", "met", "not measured"), strict=True):
        table = targets({} if value is None else {KEYS[place]: value}, GROUPS)
        assert [target.said for target in table] == [said if i == place else "not measured" for i in range(3)]
        assert table[place].value == value


def test_a_target_of_one_s_own_stands_among_them() -> None:
    own = RuleOfThumb("validation accuracy", "> 0.5", 0.6, True)
    said = [target.said for target in targets({}, GROUPS, own)]
    assert said == ["not measured", "not measured", "met", "not measured"]


def test_the_gradient_norm_has_an_upper_edge() -> None:
    for value, said in ((10.0, "met"), (math.nextafter(10, 11), "not met"), (0.0, "not met")):
        assert targets({"flow/grad_norm": value}, GROUPS)[2].said == said


@pytest.mark.parametrize(("built_in", "said"), [(2.0, "not met"), (1.0, "met"), (0.5, "met"), (1.05, "met")])
def test_what_a_model_puts_into_its_ratio_reaches_no_target(built_in: float, said: str) -> None:
    groups = dataclasses.replace(GROUPS, built_in=built_in)
    assert without_built_in(0.106, groups) == pytest.approx(0.106 / built_in)
    assert without_built_in(None, groups) is None
    target = targets({"flow/front_output_ratio": 0.106}, groups)[0]
    assert (target.value, target.said) == (pytest.approx(0.106 / built_in), said)


def test_zero_is_measured() -> None:
    assert [target.said for target in targets(dict.fromkeys(KEYS, 0.0), GROUPS)] == ["not met"] * 3


# ---- real or cosmetic


ONE = {0: 0.2, 5: 0.4, 10: 0.1}


def times(factor: float, series: dict[int, float] | None = None) -> dict[int, float]:
    return {epoch: factor * value for epoch, value in (ONE if series is None else series).items()}


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(
    ("gradient", "update", "verdict"),
    [
        (4.0, 1.0, "cosmetic"),
        (4.0, 1.9, "mostly cosmetic"),
        (4.0, 2.1, "real"),
        (4.0, 4.0, "real"),
        (4.0, 0.25, "cosmetic"),  # follows the other way
        (1.51, 1.51, "real"),
        (1.49, 1.49, "no change"),
        (1.0, 9.0, "the updates change"),
    ],
)
def test_a_change_is_real_where_the_updates_follow_up_or_down(
    gradient: float, update: float, verdict: str, *, inverse: bool
) -> None:
    if inverse:
        gradient, update = 1 / gradient, 1 / update
    found = remedy(times(gradient), times(update), ONE, ONE)
    assert found is not None
    assert found.gradient_factor == pytest.approx(gradient)
    assert found.update_factor == pytest.approx(update)
    assert found.verdict.startswith(verdict)


def test_the_other_way_round_gives_the_inverse_and_the_same_verdict() -> None:
    other = {0: 0.9, 5: 0.7, 10: 0.4}
    here, there = remedy(other, times(1.2), ONE, ONE), remedy(ONE, ONE, other, times(1.2))
    assert here
    assert there
    assert here.verdict == there.verdict
    assert here.gradient_factor * there.gradient_factor == pytest.approx(1)


def test_factors_are_geometric_means_over_the_epochs_in_common() -> None:
    found = remedy({0: 0.4, 5: 3.2, 7: 100.0}, {5: 1.0, 99: 7.0}, {**ONE, 8: 50.0}, {5: 0.5, 10: 9.0})
    assert found == Remedy(pytest.approx(4.0), pytest.approx(2.0), "real: the updates follow")


def test_epochs_with_a_ratio_of_zero_are_left_out() -> None:
    found = remedy({0: 0.0, 5: 0.8, 10: 0.3}, {}, {**ONE, 10: 0.0}, {})
    assert found is not None
    assert found.gradient_factor == pytest.approx(2)


def test_updates_that_were_not_measured_are_said_to_be() -> None:
    found = remedy(times(4), {}, ONE, ONE)
    assert found is not None
    assert (found.update_factor, found.verdict) == (None, "changed; whether the updates follow was not measured")


@pytest.mark.parametrize("before", [{}, {1: 0.5}, dict.fromkeys(ONE, 0.0)])
def test_nothing_in_common_is_no_remedy(before: dict[int, float]) -> None:
    assert remedy(ONE, ONE, before, ONE) is None
