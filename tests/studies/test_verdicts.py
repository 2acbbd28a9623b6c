"""Verdicts: a value is above a level by more than both errors, and what does not exist is said to."""

from typing import Any

import pytest

from nfa.studies.verdicts import is_above, verdict

LAYERS = ["layer_0", "layer_1", "layer_2"]
KEY = "layer_0/agop_nfm"


def values(site: str = "layer_0", value: float = 0.5, **beside: float) -> dict[str, float]:
    return {f"{site}/agop_nfm": value, **{f"{site}/agop_nfm_{end}": of for end, of in beside.items()}}


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ({"chance": 0.49}, True),
        ({"chance": 0.5}, False),
        ({"chance": 0.4, "chance_sd": 0.04}, True),
        ({"chance": 0.4, "chance_sd": 0.06}, False),
        ({"chance": 0.4, "se": 0.06}, False),
        ({"chance": 0.4, "chance_sd": 0.03, "se": 0.03}, True),  # 2 √(se² + sd²) = 0.085
        ({"chance": 0.4, "chance_sd": 0.04, "se": 0.04}, False),  # 0.113
        ({"chance": 0.4, "chance_sd": 0.04, "unbiased": 0.45}, False),
        ({"chance": 0.45, "chance_sd": 0.04, "unbiased": 0.6}, True),
    ],
)
def test_above_chance_is_more_than_both_errors_and_of_the_unbiased_value(
    beside: dict[str, float], expected: bool
) -> None:
    assert is_above(values(**beside), KEY, "chance") is expected


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ({"shared": 0.495}, False),  # levels are accurate to 0.01
        ({"shared": 0.48}, True),
        ({"shared": 0.48, "se": 0.02}, False),
        ({"shared": 0.495, "shared_sd": 0.001}, False),
        ({"shared": 0.48, "shared_sd": 0.001}, True),
        ({"shared": 0.48, "shared_sd": 0.02}, False),
    ],
)
def test_a_shared_weights_level_is_exceeded_by_its_accuracy_too(
    beside: dict[str, float], expected: bool
) -> None:
    assert is_above(values(**beside), KEY, "shared") is expected


def test_what_does_not_exist_is_not_compared() -> None:
    assert is_above(values(), KEY, "chance") is None
    assert is_above({f"{KEY}_chance": 0.2}, KEY, "chance") is None


def three(**beside: Any) -> dict[str, float]:
    return {key: of for site in LAYERS for key, of in values(site, **beside).items()}


def test_a_verdict_counts_the_layers_above_both_levels() -> None:
    found = three(chance=0.25, shared=0.4) | values("layer_2", 0.3, chance=0.35, shared=0.4)
    assert verdict([found], LAYERS, "agop_nfm") == "above chance in 2 of 3 layers, above the shared-weights level in 2"


def test_a_verdict_says_what_is_undefined_and_of_how_many_it_speaks() -> None:
    found = values("layer_0", chance=0.25, shared=0.4) | values("layer_1", chance=0.25)
    said = "above chance in 2 of 2 layers, above the shared-weights level in 1 of 1; undefined in 1"
    assert verdict([found], LAYERS, "agop_nfm") == said


def test_a_relation_without_a_shared_weights_level_says_so_and_one_without_chance_nothing() -> None:
    assert verdict([three(chance=0.25)], LAYERS, "agop_nfm") == "above chance in 3 of 3 layers, no shared-weights level"
    assert verdict([three()], LAYERS, "agop_nfm") == ""


def test_modules_are_sites() -> None:
    found = values("encoder.conv", chance=0.25)
    assert verdict([found], ["encoder.conv"], "agop_nfm").startswith("above chance in 1 of 1 sites,")


def test_a_layer_of_several_runs_counts_if_it_is_above_in_each_and_defined_in_each() -> None:
    one = three(chance=0.25, shared=0.4)
    other = {**one, **values("layer_1", 0.3, chance=0.25, shared=0.4)}
    assert verdict([one, other], LAYERS, "agop_nfm").endswith("3 layers, above the shared-weights level in 2")
    lacking = {key: of for key, of in one.items() if "layer_2" not in key}
    assert verdict([one, lacking], LAYERS, "agop_nfm").endswith("in 2; undefined in 1")
