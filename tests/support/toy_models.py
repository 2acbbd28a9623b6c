"""Small models and the smallest workload, shared by the numeric tests."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from nfa.grouping import groups_of_sites
from nfa.measures.site_matrices import Conventions, SiteMatrices, SiteMeasures, chosen_sites
from nfa.observe.door import few_of, find_sites
from nfa.parameter_groups import ParameterGroups
from nfa.registry.datasets.images import ImageData
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.relations import TRAINING, needed
from nfa.workload import Batch, Workload


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """½‖f − y‖² of each example."""
    return (outputs - targets).square().flatten(1).sum(dim=1) / 2


@dataclass
class Toy(Workload):
    """Any model with any tensors as a workload; `sites` are module names."""

    net: nn.Module
    inputs: Tensor
    targets: Tensor
    sites_named: Sequence[str]
    loss: Callable[[Tensor, Tensor], Tensor] = half_square
    examples_at_once: int = 2048

    def model(self) -> nn.Module:
        return copy.deepcopy(self.net)

    def ids(self, split: str) -> Sequence[int]:  # noqa: ARG002 - one split
        return range(len(self.inputs))

    def batches(self, split: str, *, batch_size: int, ids: Sequence[int] | Tensor | None = None) -> Iterator[Batch]:
        chosen = torch.as_tensor(list(self.ids(split)) if ids is None else ids)
        for part in chosen.split(batch_size) if len(chosen) else ():
            yield Batch(self.inputs[part], self.targets[part], part)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        result: Tensor = model(batch.inputs)
        return result

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self.loss(outputs, batch.targets)

    def metrics(self, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"error": (outputs - batch.targets).abs().flatten(1).sum(dim=1)}

    def sites(self, model: nn.Module) -> Mapping[str, nn.Module]:
        return {name: model.get_submodule(name) for name in self.sites_named}

    def readout(self, model: nn.Module) -> str | None:
        return next(reversed(list(self.sites(model))), None)

    def groups(self, model: nn.Module) -> ParameterGroups:
        return groups_of_sites(model, self.sites(model))


def toy(net: nn.Module, *shape: int, sites: Sequence[str], dtype: torch.dtype = torch.float64, seed: int = 0) -> Toy:
    """`net` in `dtype` on normal inputs of `shape` with normal targets."""
    random = torch.Generator().manual_seed(seed)
    inputs = torch.randn(shape, generator=random, dtype=torch.float64).to(dtype)
    net = net.to(dtype)
    with torch.no_grad():
        outputs = copy.deepcopy(net).eval()(inputs)
    targets = torch.randn(outputs.shape, generator=random, dtype=torch.float64).to(dtype)
    return Toy(net, inputs, targets, sites)


def seeded(build: Callable[..., nn.Module], *args: Any, seed: int = 0, **kwargs: Any) -> nn.Module:
    """`build(*args)` with its weights drawn from `seed`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(*args, **kwargs)


def layers(*sizes: int, activation: Callable[[], nn.Module] = nn.Tanh, bias: bool = True) -> nn.Sequential:
    """Linear layers of the given sizes, named 0, 2, 4, …, with activations between them."""
    parts: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        parts += [nn.Linear(fan_in, fan_out, bias=bias), activation()]
    return nn.Sequential(*parts[:-1])


class Sequences(nn.Module):
    """A map of each position, positions that see one another, a second map, a readout of the mean: [n s i] → [n k]."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(features, hidden), nn.Linear(hidden, hidden)
        self.readout = nn.Linear(hidden, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(inputs))
        mixed = torch.softmax(hidden @ hidden.transpose(1, 2), dim=-1) @ hidden
        outputs: Tensor = self.readout(torch.tanh(self.second(mixed)).mean(dim=1))
        return outputs


class Tied(nn.Module):
    """One module called twice in a forward pass, with different numbers of positions: [n s i] → [n k]."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.shared, self.readout = nn.Linear(features, hidden), nn.Linear(hidden, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        each = torch.tanh(self.shared(inputs)).sum(dim=1)
        together = torch.sin(self.shared(inputs.square().mean(dim=1)))
        outputs: Tensor = self.readout(each * together)
        return outputs


class Noisy(nn.Module):
    """Everything that a careless observer would disturb: dropout, batch statistics, a frozen part in evaluation."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.first, self.norm, self.dropout = nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.Dropout(0.5)
        self.frozen = nn.Linear(hidden, hidden).requires_grad_(False).eval()
        self.readout = nn.Linear(hidden, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.dropout(torch.relu(self.norm(self.first(inputs))))
        outputs: Tensor = self.readout(torch.relu(self.frozen(hidden)))
        return outputs


def tiny_classifier(optimizer: str = "sgd", *, n: int = 48, **options: Any) -> MLPClassifier:
    """The workload of `train` on `n` training examples of 6 random pixels in 3 classes; 12 more validate, 9 test."""
    random = np.random.default_rng(0)
    labels = np.arange(n + 12) % 3
    images = random.integers(0, 256, (n + 12, 6), dtype=np.uint8)
    data = ImageData("tiny", 255.0, images, labels, images[:9], labels[:9])
    train = list(range(n))
    ids = {"train": train, "val": list(range(n, n + 12)), "test": list(range(9)), "probe": train[::-1]}
    config = TrainConfig(**{"optimizer": optimizer, "width": 5, "depth": 2, "batch_size": 10, **options})
    return MLPClassifier(config.resolved(), data, ids)


def choose_sites(workload: Any, model: nn.Module, pattern: str = "") -> list[str]:
    """As an analysis does."""
    return chosen_sites(workload, model, find_sites(model, workload, few_of(workload)), pattern)


def tensors_in(thing: object) -> list[Tensor]:
    """Every tensor that an object of nfa or a container holds, in whatever attribute of whatever it is made of."""
    if isinstance(thing, Tensor):
        return [thing]
    if isinstance(thing, Mapping):
        return [tensor for value in thing.values() for tensor in tensors_in(value)]
    if isinstance(thing, list | tuple | set | frozenset):
        return [tensor for value in thing for tensor in tensors_in(value)]
    return tensors_in(vars(thing)) if type(thing).__module__.startswith("nfa.") and hasattr(thing, "__dict__") else []


def site_matrices(
    model: nn.Module,
    workload: Any,
    batches: Iterator[Batch],
    initial: Mapping[str, Tensor],
    *,
    precision: Any = "float32",
    centre: Any = "none",
    positions: Any = "each",
) -> SiteMatrices:
    """AGOP, NFM and NFM of W − W⁽⁰⁾ by site, for the sites whose `initial` weights are given."""
    conventions = Conventions(centre=centre, positions=positions, precision=precision)
    return SiteMeasures(workload, list(initial), needed(TRAINING), conventions, initial)(model, batches)
