"""Fault 4: a variable left over from the layer before gave every layer the same value."""

import pytest
import torch

from nfa.measures.parameter_groups import relative_changes, root_mean_squares

SIZES = {"a": 1.0, "b": 0.1, "c": 0.01}
GROUPS = {name: [name] for name in SIZES}


def test_every_group_has_its_own_value_and_one_without_a_value_has_none() -> None:
    gradients = {name: torch.full((3,), size, dtype=torch.float64) for name, size in SIZES.items()}
    assert root_mean_squares(GROUPS, gradients) == pytest.approx(SIZES)
    before = {name: torch.ones(3, dtype=torch.float64) for name in SIZES}
    after = {name: before[name] + gradients[name] for name in SIZES}
    assert relative_changes(GROUPS, before, after) == pytest.approx(SIZES)
    gradients["b"][1] = torch.nan
    before["b"].zero_()
    assert list(root_mean_squares(GROUPS, gradients)) == list(relative_changes(GROUPS, before, after)) == ["a", "c"]
