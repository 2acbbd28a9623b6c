"""The parameters of a model, grouped by module or by site."""

from collections.abc import Mapping

import torch.nn as nn

from nfa.errors import Refusal
from nfa.parameter_groups import ParameterGroups
from nfa.sinks.values import key_of

ROOT = "model"  # the group of parameters that belong to no part of the model


def groups_of_modules(model: nn.Module) -> ParameterGroups:
    """Return one group for each module that has parameters of its own, in the model's order.

    A module whose parameters all belong to an earlier one (tied weights) has no group. If it is the last module, no
    group is the output.

    Args:
        model: The model.

    Returns:
        The groups, named as in metric keys.

    Raises:
        Refusal: Two modules have the same name in metric keys.
    """
    names: dict[str, list[str]] = {}
    owners: list[str] = []
    seen: set[int] = set()
    check_keys(model)
    for path, module in model.named_modules():
        own = {name: weight for name, weight in module.named_parameters(recurse=False) if weight.requires_grad}
        new = [f"{path}.{name}".removeprefix(".") for name, weight in own.items() if id(weight) not in seen]
        seen |= {id(weight) for weight in own.values()}
        group = key_of(path) or ROOT
        owners += [group] if own else []
        if new:
            names[group] = [*names.get(group, ()), *new]
    roles = [next((part for part in of if part in names), None) for of in (owners[:1], owners[-2:-1], owners[-1:])]
    front, back, output = roles
    return ParameterGroups(names, front, back, output)


def check_keys(model: nn.Module) -> None:
    """Check that no two modules have the same name in metric keys, where one would stand for both.

    Args:
        model: The model.

    Raises:
        Refusal: Two modules have the same name.
    """
    named: dict[str, str] = {}
    for path, _ in model.named_modules():
        other = named.setdefault(key_of(path), path)
        if other != path:
            got = f"modules {other!r} and {path!r}, which would both be {key_of(path)!r} in metric keys"
            raise Refusal(got, "names that differ in letters, digits, _ or -", "rename one of them")


def groups_of_sites(model: nn.Module, sites: Mapping[str, nn.Module]) -> ParameterGroups:
    """Return one group for each site that has parameters of its own; front, back and output are the first and the last
    two.

    Args:
        model: The model.
        sites: Modules by site name, in order.

    Returns:
        The groups by site name.
    """
    full = {id(weight): name for name, weight in model.named_parameters()}
    names: dict[str, list[str]] = {}
    seen: set[int] = set()
    for site, module in sites.items():
        own = [weight for weight in module.parameters() if weight.requires_grad and id(weight) not in seen]
        seen |= {id(weight) for weight in own}
        if own:
            names[site] = [full[id(weight)] for weight in own]
    order = list(names)
    return ParameterGroups(
        names, order[0] if order else None, order[-2] if len(order) > 1 else None, order[-1] if order else None
    )
