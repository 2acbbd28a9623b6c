"""What every model family offers: a workload is a handful of per-example functions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch.nn as nn
from jaxtyping import Bool, Float, Int
from torch import Tensor


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


@dataclass(frozen=True)
class ParameterGroups:
    """Parts of a model, from its inputs to its outputs, by the names of their parameters, and three of them by role.

    `front` is the first part that learns from nothing but what the parts behind it send back, `output` the readout,
    `back` what is right before it; None where a model has no such part. `built_in` is the factor by which the model
    itself scales the gradient of `front` against that of `output`, whatever it is trained on.
    """

    names: Mapping[str, Sequence[str]]
    front: str | None
    back: str | None
    output: str | None
    built_in: float = 1.0


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


@runtime_checkable
class Workload(Protocol):
    """Model, data, per-example loss, metrics and sites; rebuilt from a run's config.json."""

    @property
    def examples_at_once(self) -> int:
        """Examples that an analysis reads at a time, at most."""

    def model(self) -> nn.Module:
        """A freshly initialised model, the same at every call."""

    def ids(self, split: str) -> Sequence[int]:
        """Example ids of "train", "val", "test", or "probe" (training examples in stratified order)."""

    def batches(self, split: str, *, batch_size: int, ids: Sequence[int] | Tensor | None = None) -> Iterator[Batch]:
        """Batches of a split in its stored order, or of the given ids of it."""

    def outputs(self, model: nn.Module, batch: Batch) -> Float[Tensor, "n ..."]:
        """f(x), what the Jacobian is taken of."""

    def losses(self, outputs: Float[Tensor, "n ..."], batch: Batch) -> Float[Tensor, " n"]:
        """ℓ of each example, never reduced."""

    def metrics(self, outputs: Float[Tensor, "n ..."], batch: Batch) -> Mapping[str, Float[Tensor, " n"]]:
        """Further values of each example, such as accuracy."""

    def classes(self, batch: Batch) -> Int[Tensor, " n"] | None:
        """The class of each example, as its label says; None where there are no classes."""

    def sites(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Ordered, named linear maps."""

    def readout(self, model: nn.Module) -> str | None:
        """The site that gives the outputs; None where it is not among the sites."""

    def groups(self, model: nn.Module) -> ParameterGroups:
        """Parts of the model whose learning is told apart."""
