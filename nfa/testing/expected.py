"""What every study has to find, computed by the slow references: one example at a time, in float64."""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
import torch.nn as nn
from torch import Tensor

from nfa import reference
from nfa.reference import Observation
from nfa.reference.linear_twin import twin_sites
from nfa.relations import RELATIONS as ALL
from nfa.workload import Batch, Workload

Values = dict[str, dict[str, Tensor]]  # by quantity, then by site or parameter
RELATIONS: dict[str, Mapping[str, Sequence[str]]] = {
    f"{kind}s": {name: one.matrices for name, one in ALL.items() if one.kind == kind}
    for kind in ("cosine", "stable rank")
}
Twin = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True)
class Case:
    """A workload, its model before training and now, and the examples that are used.

    Args:
        workload: The workload.
        start: The model before training.
        model: The model now.
        ids: The ids of the examples.
        twin: A function that turns a model into the same function made of nn.Linear only.
    """

    workload: Workload
    start: nn.Module
    model: nn.Module
    ids: Sequence[int]
    twin: Twin

    def alone(self) -> list[Batch]:
        """Return each example as a batch of its own, at its own length, in float64."""
        return [
            _own_length(next(self.workload.batches("train", batch_size=1, ids=[item])).double()) for item in self.ids
        ]


def _own_length(example: Batch) -> Batch:
    """Remove padding from every tensor that has one entry for each position."""
    if example.present is None:
        return example
    own, length = example.present[0], example.present.shape[1]
    cut = example.map(lambda tensor: tensor[:, own] if tensor.ndim > 1 and tensor.shape[1] == length else tensor)
    return replace(cut, present=None)


def alignment(case: Case) -> Values:
    """Return matrices and relations of every linear map that the twin of the model calls.

    Args:
        case: The workload with its models and examples.

    Returns:
        The values by quantity and site.
    """
    now, before = (case.twin(copy.deepcopy(model).double().eval()) for model in (case.model, case.start))
    paths = twin_sites(now)
    found: Values = {}
    for path, observed in reference.observations(now, case.workload, case.alone(), paths).items():
        weights = [model.get_parameter(f"{paths[path]}.weight").detach() for model in (now, before)]
        site, matrices = _site(case, path), _matrices(observed, *weights)
        for name, matrix in matrices.items():
            found.setdefault(name, {})[site] = matrix
        for kind, relations in RELATIONS.items():
            found.setdefault(kind, {}).update(_relations(site, matrices, kind, relations))
    return found


def _site(case: Case, path: str) -> str:
    """Return the name that a workload gives to the layer at a path, or the path itself."""
    named = {module: name for name, module in case.workload.sites(case.model).items()}
    layers = dict(case.model.named_modules())
    return named.get(layers[path], path) if path in layers else path


def _matrices(observed: Sequence[Observation], weight: Tensor, initial: Tensor) -> dict[str, Tensor]:
    """Return the matrices of a site, named as in nfa/relations.py."""

    def mean(matrix: Callable[[Observation], Tensor]) -> Tensor:
        return sum((matrix(one) for one in observed), torch.zeros(())) / len(observed)

    def moment(rows: Callable[[Observation], Tensor]) -> Tensor:
        return mean(lambda one: reference.second_moment(rows(one)[None], rows(one)[None]))

    weight = weight.double()
    return {
        "agop": mean(lambda one: reference.agop((one.K @ weight)[None])),
        "nfm": reference.nfm(weight),
        "nfm_init_removed": reference.nfm_init_removed(weight, initial),
        "g": moment(lambda one: -one.delta @ weight),
        "h": moment(lambda one: one.h),
        "fact": mean(lambda one: reference.fact(weight, one.h[None], one.delta[None])),
        "out_g": moment(lambda one: one.delta),
        "out_h": moment(lambda one: one.z),
        "out_m": reference.nfm(weight.T),
    }


def _relations(
    site: str, matrices: Mapping[str, Tensor], kind: str, relations: Mapping[str, Sequence[str]]
) -> dict[str, Tensor]:
    """Return the relations by site and name; undefined ones are absent."""
    compare: Callable[..., float] = reference.cosine if kind == "cosines" else reference.stable_rank
    found = {}
    for name, parts in relations.items():
        with suppress(ValueError):
            value = compare(*(matrices[part] for part in parts))
            found[f"{site}/{name}"] = torch.tensor(value, dtype=torch.float64)
    return found


def directions(case: Case) -> Values:
    """Return Gram matrices of per-example gradients, over all parameters together and over each.

    Args:
        case: The workload with its models and examples.

    Returns:
        The values by quantity and parameter.
    """
    names = [name for name, weight in case.model.named_parameters() if weight.requires_grad]
    rows = torch.cat(
        [reference.example_gradients(case.model, case.workload, example, names) for example in case.alone()]
    )
    parts = rows.split([case.model.get_parameter(name).numel() for name in names], dim=1)
    each = {name: reference.gradient_gram(part) for name, part in zip(names, parts, strict=True)}
    return {"gradient Gram": {"all": reference.gradient_gram(rows)}, "gradient Gram by parameter": each}


def flow(case: Case) -> Values:
    """Return the gradient of the mean loss by parameter.

    Args:
        case: The workload with its models and examples.

    Returns:
        The values by quantity and parameter.
    """
    examples = case.alone()
    each = [reference.mean_gradients(case.model, case.workload, example) for example in examples]
    return {"mean gradient": {name: torch.stack([one[name] for one in each]).mean(dim=0) for name in each[0]}}
