"""What studies and analyses ask of a model: a workload is a handful of per-example functions."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn as nn
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nfa.errors import Refusal
from nfa.maths.known_features import KnownFeatures
from nfa.parameter_groups import ParameterGroups as ParameterGroups
from nfa.sinks.values import key_of


@dataclass(frozen=True)
class Batch:
    """Model inputs and targets of some examples, with the examples' ids in the dataset's published order.

    `present` tells the positions of sequences that are an example's own from those that only pad it to the length of
    the others; None where there is no padding.
    """

    inputs: Any
    targets: Any
    ids: Int[Tensor, " n"]
    present: Bool[Tensor, "n s"] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with every tensor of its inputs and targets changed; containers stay what they are."""
        return replace(self, inputs=_map(change, self.inputs), targets=_map(change, self.targets))

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; its ids stay where they are."""
        moved = self.map(lambda tensor: tensor.to(device))
        return replace(moved, present=None if self.present is None else self.present.to(device))

    def double(self) -> "Batch":
        """The batch with floating-point tensors in float64."""
        return self.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)

    def take(self, places: Sequence[int]) -> "Batch":
        """The examples at these places, taken from every tensor that has one row for each."""
        n, index = len(self), list(places)
        taken = self.map(lambda tensor: tensor[index] if tensor.ndim and len(tensor) == n else tensor)
        return replace(taken, ids=self.ids[index], present=None if self.present is None else self.present[index])


def _map(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map(change, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        make = getattr(type(value), "_make", type(value))  # a named tuple takes its parts one by one
        return make(_map(change, item) for item in value)
    return value


ROOT = "model"  # the group of parameters that belong to no part of the model


def groups_of_modules(model: nn.Module) -> ParameterGroups:
    """A group for each module that has parameters of its own, in the model's order, called as series call it.

    A module all of whose parameters belong to one before it (tied weights) has no group; where it is the last, no group
    is the output.
    """
    names: dict[str, list[str]] = {}
    owners: list[str] = []
    seen: set[int] = set()
    _check_keys(model)
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


def _check_keys(model: nn.Module) -> None:
    """`Refusal` for two modules whose names are one and the same in the keys of series: one would stand for both."""
    named: dict[str, str] = {}
    for path, _ in model.named_modules():
        other = named.setdefault(key_of(path), path)
        if other != path:
            got = f"modules {other!r} and {path!r}, of which both are {key_of(path)!r} in the names of series"
            raise Refusal(got, "names that differ in letters, digits, _ or -", "give one of them another name")


def groups_of_sites(model: nn.Module, sites: Mapping[str, nn.Module]) -> ParameterGroups:
    """A group for each site that has parameters of its own; front, back and output are the first and the last two."""
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


class Objective(Protocol):
    """What a training makes small, as a function of a batch's outputs; it may keep a state from step to step.

    Of a step that comes in several `parts`, of `examples` in all processes together, `share` weighs each part's value.
    `fixed` gives per-example losses whose mean over the examples `seen` (outputs and batches) is its value for them.
    """

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor: ...

    def share(self, part: Batch, parts: Sequence[Batch], examples: int) -> float: ...

    def step(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> None: ...

    def fixed(self, seen: Iterable[tuple[Tensor, Batch]]) -> Callable[[Tensor, Batch], Tensor]: ...


class MeanLoss:
    """The mean of the per-example losses, every example weighing the same."""

    def __init__(self, losses: Callable[[Tensor, Batch], Tensor]) -> None:
        self.losses = losses

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self.losses(outputs, batch).mean()

    def share(self, part: Batch, parts: Sequence[Batch], examples: int) -> float:  # noqa: ARG002
        """Its share of the examples."""
        return len(part) / examples

    def step(self) -> None:
        """Nothing to remember."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""

    def fixed(self, seen: Iterable[tuple[Tensor, Batch]]) -> Callable[[Tensor, Batch], Tensor]:  # noqa: ARG002
        """Per-example losses, which depend on no other example."""
        return self.losses


@runtime_checkable
class Workload(Protocol):
    """Model, data, per-example loss, and what else studies and analyses ask; nothing but this is used of a model.

    `model`, `ids`, `batches`, `outputs` and `losses` have to be written; a class that inherits has the rest.
    """

    device: torch.device = torch.device("cpu")  # where batches and models are

    @property
    def examples_at_once(self) -> int:
        """Examples that an analysis reads at a time, at most."""
        return 2048

    @abstractmethod
    def model(self) -> nn.Module:
        """A freshly initialised model, the same at every call."""

    @abstractmethod
    def ids(self, split: str) -> Sequence[int]:
        """Example ids of "train", "val", "test", or "probe" (training examples in the order that analyses take)."""

    @abstractmethod
    def batches(self, split: str, *, batch_size: int, ids: Sequence[int] | Tensor | None = None) -> Iterator[Batch]:
        """Batches of a split in its stored order, or of the given ids of it."""

    @abstractmethod
    def outputs(self, model: nn.Module, batch: Batch) -> Float[Tensor, "n ..."]:
        """f(x), what the Jacobian is taken of."""

    @abstractmethod
    def losses(self, outputs: Float[Tensor, "n ..."], batch: Batch) -> Float[Tensor, " n"]:
        """ℓ of each example, never reduced."""

    def objective(self) -> Objective:
        """What training makes small; the mean of `losses` unless examples are weighted."""
        return MeanLoss(self.losses)

    def described_loss(self, *, plain: bool) -> str:  # noqa: ARG002 - examples are not weighted
        """The loss in words; `plain`: whatever the weights of examples are."""
        return f"the loss of {type(self).__name__}"

    def metrics(
        self, outputs: Float[Tensor, "n ..."], batch: Batch  # noqa: ARG002 - no more than the loss
    ) -> Mapping[str, Float[Tensor, " n"]]:
        """Further values of each example, such as accuracy."""
        return {}

    def classes(self, batch: Batch) -> Int[Tensor, " n"] | None:  # noqa: ARG002
        """The class of each example, as its label says; None where there are no classes."""
        return None

    def noisy(self) -> Sequence[int]:
        """Ids of training examples whose label is known to be wrong."""
        return ()

    def sites(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """What is observed, by the names that series have: all modules, the model itself under no name.

        A family may give some under names of its own, and then only those are looked at. A module that is named one by
        one and uses no weight itself is one site with all that is inside it.
        """
        _check_keys(model)
        return {key_of(path): module for path, module in model.named_modules()}

    def readout(self, model: nn.Module) -> str | None:  # noqa: ARG002
        """The site that gives the outputs; None: the last one called where all modules are sites, else none."""
        return None

    def known_features(self) -> Mapping[str, KnownFeatures]:
        """What is known of the right features of a site's input, by site: of a toy whose answer is known."""
        return {}

    def groups(self, model: nn.Module) -> ParameterGroups:
        """Parts of the model whose learning is told apart."""
        return groups_of_modules(model)
