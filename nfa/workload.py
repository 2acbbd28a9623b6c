"""What studies and analyses ask of a model: a workload is a handful of per-example functions."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn as nn
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nfa.grouping import check_keys, groups_of_modules
from nfa.maths.known_features import KnownFeatures
from nfa.parameter_groups import ParameterGroups
from nfa.sinks.values import key_of


@dataclass(frozen=True)
class Batch:
    """Inputs and targets of some examples.

    Args:
        inputs: What the model takes: a tensor, or containers of tensors, with one row per example.
        targets: What the loss takes beside the outputs, with one row per example.
        ids: The ids of the examples [n] in the dataset's published order.
        present: True for positions of sequences that belong to the example, false for padding [n, s]; None without
            padding.
    """

    inputs: Any
    targets: Any
    ids: Int[Tensor, " n"]
    present: Bool[Tensor, "n s"] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with `change` applied to every tensor of its inputs and targets."""
        return replace(self, inputs=_map(change, self.inputs), targets=_map(change, self.targets))

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device; its ids stay where they are."""
        moved = self.map(lambda tensor: tensor.to(device))
        return replace(moved, present=None if self.present is None else self.present.to(device))

    def double(self) -> "Batch":
        """Return the batch with its floating-point tensors in float64."""
        return self.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)

    def take(self, places: Sequence[int]) -> "Batch":
        """Return the examples at these positions, taken from every tensor that has one row per example."""
        n, index = len(self), list(places)
        taken = self.map(lambda tensor: tensor[index] if tensor.ndim and len(tensor) == n else tensor)
        return replace(taken, ids=self.ids[index], present=None if self.present is None else self.present[index])


def _map(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map(change, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        make = getattr(type(value), "_make", type(value))  # a named tuple takes its elements as separate arguments
        return make(_map(change, item) for item in value)
    return value


class Objective(Protocol):
    """What a training minimises, as a function of a batch's outputs; it may keep a state from step to step.

    A step may consist of several `parts`, with `examples` in all processes together; `share` weights each part's value.
    `fixed` returns per-example losses whose mean over the examples `seen` (outputs and batches) is the objective.
    """

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor: ...

    def share(self, part: Batch, parts: Sequence[Batch], examples: int) -> float: ...

    def step(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> None: ...

    def fixed(self, seen: Iterable[tuple[Tensor, Batch]]) -> Callable[[Tensor, Batch], Tensor]: ...


class MeanLoss:
    """The mean of the per-example losses, with equal weights.

    Args:
        losses: A function of outputs and batch that returns one loss per example.
    """

    def __init__(self, losses: Callable[[Tensor, Batch], Tensor]) -> None:
        self.losses = losses

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self.losses(outputs, batch).mean()

    def share(self, part: Batch, parts: Sequence[Batch], examples: int) -> float:  # noqa: ARG002
        """Return the part's share of the examples."""
        return len(part) / examples

    def step(self) -> None:
        """Do nothing: there is no state."""

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: there is no state."""

    def fixed(self, seen: Iterable[tuple[Tensor, Batch]]) -> Callable[[Tensor, Batch], Tensor]:  # noqa: ARG002
        """Return the per-example losses, which depend on no other example."""
        return self.losses


@runtime_checkable
class Workload(Protocol):
    """A model, its data and its per-example loss; studies and analyses use nothing else of a model.

    `model`, `ids`, `batches`, `outputs` and `losses` must be written; a class that inherits from this one has defaults
    for the rest.

    Attributes:
        device: Where models and batches are.
    """

    device: torch.device = torch.device("cpu")  # where batches and models are

    @property
    def examples_at_once(self) -> int:
        """The largest number of examples that an analysis reads at a time."""
        return 2048

    @abstractmethod
    def model(self) -> nn.Module:
        """Return a freshly initialised model, the same at every call."""

    @abstractmethod
    def ids(self, split: str) -> Sequence[int]:
        """Return the example ids of a split.

        Args:
            split: "train", "val", "test", or "probe": training examples in the order in which analyses take them.

        Returns:
            The ids.
        """

    @abstractmethod
    def batches(self, split: str, *, batch_size: int, ids: Sequence[int] | Tensor | None = None) -> Iterator[Batch]:
        """Yield batches of a split, in its stored order or in that of the given ids.

        Args:
            split: "train", "val" or "test".
            batch_size: The number of examples in a batch; the last one may be smaller.
            ids: The ids of the examples; None stands for all.

        Yields:
            The batches.
        """

    @abstractmethod
    def outputs(self, model: nn.Module, batch: Batch) -> Float[Tensor, "n ..."]:
        """Return the outputs f(x) [n, …], of which Jacobians are taken."""

    @abstractmethod
    def losses(self, outputs: Float[Tensor, "n ..."], batch: Batch) -> Float[Tensor, " n"]:
        """Return the loss ℓ of each example [n], never reduced."""

    def objective(self) -> Objective:
        """Return what training minimises; the mean of `losses` unless examples are weighted."""
        return MeanLoss(self.losses)

    def described_loss(self, *, plain: bool) -> str:  # noqa: ARG002 - examples are not weighted
        """Return the loss in words; with `plain`, the one without weights of examples."""
        return f"the loss of {type(self).__name__}"

    def metrics(
        self, outputs: Float[Tensor, "n ..."], batch: Batch  # noqa: ARG002 - no more than the loss
    ) -> Mapping[str, Float[Tensor, " n"]]:
        """Return further values of each example [n] by name, such as accuracy."""
        return {}

    def classes(self, batch: Batch) -> Int[Tensor, " n"] | None:  # noqa: ARG002
        """Return the class of each example [n], as its label states it; None where there are no classes."""
        return None

    def population(self) -> int | None:
        """Return the number of examples that the probe was drawn from: the training set; None if it is not known."""
        return len(self.ids("train"))

    def stratified(self) -> int:
        """Return how many of the probe's first examples hold the classes in their proportions, in every prefix.

        Standard errors of a sample that was drawn by class are smaller. By default none: the order is not known.
        """
        return 0

    def noisy(self) -> Sequence[int]:
        """Return the ids of training examples whose label is known to be wrong."""
        return ()

    def sites(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Return the modules that are observed, by the names that series have; the model itself has an empty name.

        By default these are all modules. A family may return some of them under names of its own; only those are then
        observed, and a named module that uses no weight itself is one site together with everything inside it.
        """
        check_keys(model)
        return {key_of(path): module for path, module in model.named_modules()}

    def readout(self, model: nn.Module) -> str | None:  # noqa: ARG002
        """Return the name of the site that produces the outputs.

        None stands for the last site called if all modules are sites, and otherwise for no site.
        """
        return None

    def known_features(self) -> Mapping[str, KnownFeatures]:
        """Return known features of sites' inputs by site name, for tasks whose right features are known."""
        return {}

    def groups(self, model: nn.Module) -> ParameterGroups:
        """Return the parts of the model whose learning is compared."""
        return groups_of_modules(model)
