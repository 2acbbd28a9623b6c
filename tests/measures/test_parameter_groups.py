"""Sizes of gradients and changes of groups against one number at a time; what is undefined is left out."""

import math

import pytest
import torch
import torch.nn as nn
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.grouping import groups_of_sites
from nfa.measures.parameter_groups import gradient_norm, norm, relative_changes, root_mean_squares
from tests.support.toy_models import Tied, layers, seeded, toy

Groups = dict[str, list[str]]
shapes = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=5)


def drawn(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@st.composite
def tensors(draw) -> tuple[Groups, dict[str, Tensor], dict[str, Tensor]]:
    """Groups of some tensors, each in one of them or none, before and after."""
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    seed, all_shapes = draw(st.integers(0, 99)), draw(shapes)
    before = {f"p{i}": drawn(shape, seed + i, dtype) for i, shape in enumerate(all_shapes)}
    after = {name: weight + drawn(weight.shape, seed + 50, dtype) for name, weight in before.items()}
    groups: Groups = {"a": [], "b": [], "nothing": []}
    for name in before:
        if place := draw(st.sampled_from(["a", "b", ""])):
            groups[place].append(name)
    return groups, before, after


def defined(groups: Groups, value) -> dict[str, float]:
    """Of the groups for which the reference has a value."""
    found = {}
    for group, names in groups.items():
        try:
            found[group] = value(names)
        except ValueError:
            continue
    return found


@given(tensors())
def test_sizes_and_changes_agree_with_loops_over_numbers(drawn_tensors) -> None:
    groups, before, after = drawn_tensors
    sizes = defined(groups, lambda names: reference.root_mean_square([before[name] for name in names]))
    assert root_mean_squares(groups, before) == pytest.approx(sizes, rel=1e-9)
    changes = defined(
        groups, lambda names: reference.relative_change([before[n] for n in names], [after[n] for n in names])
    )
    # In the weights' own precision: what was stored has no more.
    near = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 0.05}[before["p0"].dtype]
    assert relative_changes(groups, before, after) == pytest.approx(changes, rel=near)
    entries = [float(x) for weight in before.values() for x in weight.double().flatten()]
    assert norm(before.values()) == pytest.approx(math.sqrt(sum(x * x for x in entries)), rel=1e-12)


def test_a_size_says_nothing_of_how_many_parameters_there_are() -> None:
    equal = {"few": torch.full((2,), 0.3), "many": torch.full((50, 40), -0.3)}
    found = root_mean_squares({name: [name] for name in equal}, equal)
    assert found["few"] == pytest.approx(found["many"], rel=1e-9)


@pytest.mark.parametrize("entry", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_left_out_and_spoils_no_other_group(entry: float) -> None:
    fine, broken = torch.ones(3), torch.tensor([1.0, entry])
    groups = {"fine": ["fine"], "broken": ["broken"], "both": ["fine", "broken"]}
    assert root_mean_squares(groups, {"fine": fine, "broken": broken}) == {"fine": 1.0}
    start = {"fine": fine, "broken": torch.ones(2)}
    assert relative_changes(groups, start, {"fine": 2 * fine, "broken": broken}) == {"fine": 1.0}
    assert relative_changes({"broken": ["broken"]}, {"broken": broken}, {"broken": torch.ones(2)}) == {}


def test_a_change_from_nothing_is_undefined_and_no_change_is_zero() -> None:
    weights = {"zero": torch.zeros(3), "one": torch.ones(3)}
    assert relative_changes({name: [name] for name in weights}, weights, {"zero": torch.ones(3), **weights}) == {
        "one": 0.0
    }


def test_large_numbers_do_not_overflow() -> None:
    large = {"a": torch.full((4,), 1e30)}
    assert root_mean_squares({"a": ["a"]}, large)["a"] == pytest.approx(float(large["a"][0]), rel=1e-9)


def test_the_norm_of_gradients_is_of_those_that_are_there() -> None:
    net = seeded(layers, 3, 4, 2)
    assert gradient_norm(net.parameters()) is None
    net[0].weight.grad = torch.full((4, 3), 2.0)
    assert gradient_norm(net.parameters()) == pytest.approx(2 * math.sqrt(12), rel=1e-12)
    net[2].bias.grad = torch.tensor([math.nan, 0.0])
    assert gradient_norm(net.parameters()) is None


# ---- groups of any model: one for each site


def test_one_group_for_each_site_front_first_output_last() -> None:
    net = seeded(layers, 3, 4, 4, 2)
    toys = toy(net, 2, 3, sites=["0", "2", "4"])
    groups = toys.groups(net)
    assert groups.names == {site: [f"{site}.weight", f"{site}.bias"] for site in ("0", "2", "4")}
    assert (groups.front, groups.back, groups.output, groups.built_in) == ("0", "2", "4", 1.0)


def test_of_two_sites_the_first_is_front_and_back_and_of_one_all_but_the_back() -> None:
    net = seeded(layers, 3, 4, 2)
    two = groups_of_sites(net, {"in": net[0], "out": net[2]})
    assert (two.front, two.back, two.output) == ("in", "in", "out")
    one = groups_of_sites(net, {"in": net[0]})
    assert (one.front, one.back, one.output) == ("in", None, "in")
    none = groups_of_sites(net, {})
    assert (none.names, none.front, none.back, none.output) == ({}, None, None, None)


def test_frozen_parameters_are_in_no_group_and_shared_ones_in_the_first() -> None:
    net = seeded(layers, 3, 3, 3, 3)
    net[2].weight = net[0].weight
    net[4].requires_grad_(False)
    groups = groups_of_sites(net, {"a": net[0], "b": net[2], "c": net[4]})
    assert groups.names == {"a": ["0.weight", "0.bias"], "b": ["2.bias"]}
    assert groups.output == "b"


def test_a_module_that_is_called_twice_is_one_group() -> None:
    net = seeded(Tied, 3, 4, 2)
    named = {name: module for name, module in net.named_modules() if isinstance(module, nn.Linear)}
    groups = groups_of_sites(net, named)
    names = [name for of_group in groups.names.values() for name in of_group]
    assert sorted(names) == sorted(name for name, _ in net.named_parameters())
