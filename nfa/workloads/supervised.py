"""A workload from a function that creates a model, and datasets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nfa.errors import Refusal
from nfa.maths.known_features import KnownFeatures
from nfa.observe.passes import per_example
from nfa.observe.sizes import examples_at_once
from nfa.seeding import seed_generators, untouched, whole_number
from nfa.sinks.values import check_name
from nfa.workload import Batch, Workload
from nfa.workloads.dataset_items import Collate, Items
from nfa.workloads.devices import choose_device
from nfa.workloads.examples import Loss, Outputs, Present, are_classes, call, own_outputs
from nfa.workloads.probe import named

Metric = Callable[[Tensor, Any], Tensor]


class Supervised(Workload):
    """A workload of a model and map-style datasets of examples with targets.

        nfa.Supervised(model=lambda: Net(width=32), loss=loss, train=train, val=val, metrics={"accuracy": accuracy})

    An item is a pair (inputs, targets) or a dict whose labels are the targets; its id is its position in the dataset.
    If the targets are classes, the probe holds the classes in their proportions. A dataset that draws random numbers,
    as for augmentation, draws the same for the same batch and others for another.

    Args:
        model: A function that returns a new model. The random generators are seeded before it is called, and restored
            afterwards.
        loss: A function of outputs and targets that returns one loss per example [n].
        train: The training set.
        val: The validation set.
        test: The test set; None if there is none.
        metrics: Functions of outputs and targets that return one value per example [n], by name.
        outputs: A function of model and inputs that returns the outputs f; by default model(inputs), or model(**inputs)
            for a dict, or the logits of the answer.
        collate: A function that makes a batch of a list of items; None stands for `torch.utils.data.default_collate`.
        present: A function of inputs that returns which positions belong to an example [n, s], if no attention mask
            does.
        known_features: Known features of sites' inputs by site name (nfa/maths/known_features.py).
        seed: The seed of the initial weights and of the probe's order; None takes that of the training.
        device: The device; None takes that of the training.

    Raises:
        Refusal: The loss is reduced, or an argument or an item is none of these.
    """

    name = "supervised"

    def __init__(
        self,
        *,
        model: Callable[[], nn.Module],
        loss: Loss,
        train: Any,
        val: Any,
        test: Any = None,
        metrics: Mapping[str, Metric] | None = None,
        outputs: Outputs = call,
        collate: Collate | None = None,
        present: Present | None = None,
        known_features: Mapping[str, KnownFeatures] | None = None,
        seed: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if isinstance(model, nn.Module):
            got = f"model= that is a {type(model).__name__} itself"
            raise Refusal(got, "a function that returns a new torch.nn.Module", "model=lambda: Net(width=32)")
        self.make, self.loss, self.call = model, loss, outputs
        self.measured, self.known = _checked(metrics or {}), dict(known_features or {})
        given = {"train": train, "val": val, "test": test}
        self.items = {name: Items(data, collate, present) for name, data in given.items() if data is not None}
        self._given = seed, device
        self.settle(seed=0, device="auto")
        self._first = {name: items.check().take([0]) for name, items in self.items.items()}

    def settle(self, *, seed: int, device: torch.device | str) -> None:
        """Take seed and device from whoever trains the workload, unless they were given."""
        own_seed, own_device = self._given
        self.seed = seed if own_seed is None else own_seed
        self.device = choose_device(str(device if own_device is None else own_device))
        self.__dict__.pop("_probe", None)  # its order depends on the seed

    @cached_property
    def examples_at_once(self) -> int:
        """The number of examples whose forward pass fits into a moderate amount of memory."""
        return examples_at_once(self.model(), self)

    def model(self) -> nn.Module:
        """Return a new model with its initial weights."""
        with untouched():
            seed_generators(whole_number(self.seed, "init"))
            made = self.make()
        if not isinstance(made, nn.Module):
            got = f"model= that returns a {type(made).__name__}"
            raise Refusal(got, "a function that returns a new torch.nn.Module", "model=lambda: Net(width=32)")
        return made.to(self.device)

    def ids(self, split: str) -> Sequence[int]:
        """Return the ids of a split."""
        return self._probe if split == "probe" else range(len(self._items(split)))

    @cached_property
    def _probe(self) -> list[int]:
        return self.items["train"].order(self.seed)

    def _items(self, split: str) -> Items:
        if split in self.items:
            return self.items[split]
        raise Refusal(f"split {split!r}", ", ".join([*self.items, "probe"]), f"pass a dataset to Supervised: {split}=")

    def batches(self, split: str, *, batch_size: int, ids: Sequence[int] | Tensor | None = None) -> Iterator[Batch]:
        """Yield batches of a split."""
        items = self._items("train" if split == "probe" else split)
        chosen = torch.as_tensor(list(self.ids(split)) if ids is None else ids, dtype=torch.int64)
        for part in chosen.split(batch_size) if len(chosen) else ():
            yield items.batch(part.tolist()).to(self.device)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return f, with 0 at padding."""
        return own_outputs(self.call(model, batch.inputs), batch)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the loss of each example."""
        return per_example(self.loss(outputs, batch.targets), batch)

    def described_loss(self, *, plain: bool) -> str:  # noqa: ARG002 - examples are not weighted
        """Return the name of the loss."""
        return named(self.loss)

    def metrics(self, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Return the values of each example by name of the metric."""
        return {name: self._metric(name, outputs, batch) for name in self.measured}

    def _metric(self, name: str, outputs: Tensor, batch: Batch) -> Tensor:
        found = torch.as_tensor(self.measured[name](outputs, batch.targets))
        if found.shape == (len(batch),):
            return found
        got = f"metric {name!r} of shape {tuple(found.shape)} for {len(batch)} examples"
        raise Refusal(got, "one value for each example", "do not average: nfa averages over all examples")

    def known_features(self) -> Mapping[str, KnownFeatures]:
        """Return the known features by site."""
        return self.known

    def stratified(self) -> int:
        """Return how many of the probe's first examples hold the classes in their proportions."""
        return self.items["train"].stratified

    def classes(self, batch: Batch) -> Tensor | None:
        """Return the targets if they are whole numbers."""
        return batch.targets.long() if are_classes(batch.targets) else None


def _checked(metrics: Any) -> dict[str, Metric]:
    """Return the metrics by name; `Refusal` where they are not functions by name, or a series cannot have that name."""
    if not isinstance(metrics, Mapping):
        got = f"metrics= that is a {type(metrics).__name__}"
        raise Refusal(got, "functions of outputs and targets, by name", 'metrics={"accuracy": accuracy}')
    for name in metrics:
        check_name(name)
    if "loss" in metrics:
        allowed = "other names, since train/loss and val/loss belong to loss="
        raise Refusal("a metric named 'loss'", allowed, "rename it")
    return dict(metrics)
