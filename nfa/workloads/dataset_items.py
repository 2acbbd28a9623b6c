"""Batches of examples from a Dataset."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset, default_collate

from nfa.errors import NfaError, Refusal, reason
from nfa.seeding import generator, seed_generators, untouched, whole_number
from nfa.workload import Batch
from nfa.workloads.examples import Present, are_classes, check_padding, own_positions, parted
from nfa.workloads.stratified import stratified_order

Collate = Callable[[list[Any]], Any]
FIRST = 64  # examples that are read for the check
LOOKED_AT = 4096  # examples whose class is read; a dataset creates its items one by one


class Items:
    """The items of a map-style dataset; the id of an example is its position.

    An item is a pair (inputs, targets) or a dict with labels. Reading does not change the state of the global random
    generators.

    Args:
        dataset: The dataset, with a length and items.
        collate: A function that makes a batch of a list of items; None stands for `torch.utils.data.default_collate`.
        present: A function of inputs that returns which positions belong to an example [n, s], if no attention mask
            does.

    Raises:
        Refusal: The dataset has no length, no items or no examples.
    """

    def __init__(self, dataset: Any, collate: Collate | None = None, present: Present | None = None) -> None:
        self.dataset, self.collate, self.present = dataset, collate or default_collate, present
        streams = isinstance(dataset, IterableDataset)  # it inherits a __getitem__ that only raises
        if streams or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            got = f"a {type(dataset).__name__} without a length or without items"
            raise Refusal(got, "a map-style Dataset: len(dataset) and dataset[i]", "pass a list of its examples")
        if not len(dataset):
            raise Refusal("a dataset without examples", "at least one example", "pass another dataset")

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, ids: Sequence[int]) -> Batch:
        """Return the examples with these ids; `Refusal` where they do not form a batch."""
        with untouched():
            found = self._found(ids)
        inputs, targets = parted(found)
        present = own_positions(inputs) if self.present is None else self.present(inputs).bool()
        return Batch(inputs, targets, torch.as_tensor(ids), present)

    def _found(self, ids: Sequence[int]) -> Any:
        """Return rows of tensors at once, as `default_collate` would stack them, and other items one by one."""
        if type(self.dataset) is TensorDataset and self.collate is default_collate:
            index = torch.as_tensor(ids)
            return [tensor[index] for tensor in self.dataset.tensors]
        seed_generators(whole_number(0, f"items {list(ids)}"))
        return self._collated([_tensors(self.dataset[int(place)]) for place in ids])

    def check(self) -> Batch:
        """Return the first examples; `Refusal` where they cannot be used, or look padded without a mask that marks the
        padding.
        """
        first = self.batch(range(min(FIRST, len(self))))
        if self.present is None:
            check_padding(first.inputs)
        return first

    def _collated(self, items: list[Any]) -> Any:
        try:
            return self.collate(items)
        except NfaError:
            raise
        except Exception as error:  # a collate function can raise any error
            got = f"examples that cannot be combined into one batch ({reason(error)})"
            allowed = "examples of one shape, or a collate function that pads them and returns an attention_mask"
            raise Refusal(got, allowed, "pass a DataLoader with its collate_fn, or pass collate=") from error

    def order(self, seed: int) -> list[int]:
        """Return all ids in an order whose first n hold the classes in their proportions; without classes, in their own
        order.

        The classes of at most 4,096 examples, drawn by the seed, are read; the other examples follow.
        """
        everyone = list(range(len(self)))
        if self.class_of(0) is None:
            return everyone
        drawn = everyone
        if len(self) > LOOKED_AT:
            drawn = torch.randperm(len(self), generator=generator(seed, "probe of a dataset")).tolist()
        looked = drawn[:LOOKED_AT]
        labels = torch.zeros(len(self), dtype=torch.int64)
        with untouched():
            labels[looked] = torch.tensor([self.class_of(place) or 0 for place in looked])
        return stratified_order(looked, labels.numpy(), seed) + drawn[LOOKED_AT:]

    @property
    def stratified(self) -> int:
        """How many of the first examples of `order` hold the classes in their proportions."""
        return 0 if self.class_of(0) is None else min(len(self), LOOKED_AT)

    def class_of(self, place: int) -> int | None:
        """Return the class of an example; None where its target is not a class."""
        with untouched():
            _, target = parted(_tensors(self.dataset[place]))
        alone = target[None] if isinstance(target, Tensor) and not target.dim() else None
        return int(target) if isinstance(target, int) or are_classes(alone) else None


def _tensors(item: Any) -> Any:
    """Convert lists of numbers in an item to tensors, since text libraries return such lists."""
    if isinstance(item, Mapping):
        return {name: torch.as_tensor(value) if isinstance(value, list) else value for name, value in item.items()}
    return item
