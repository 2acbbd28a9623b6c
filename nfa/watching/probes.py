"""The examples that are analysed, from any form in which they are given."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch.nn as nn
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, SubsetRandomSampler

from nfa.errors import Refusal
from nfa.maths.known_features import KnownFeatures
from nfa.seeding import untouched
from nfa.watching.options import whole_number
from nfa.workload import Batch
from nfa.workloads.dataset_items import Items
from nfa.workloads.examples import LABELS, Loss, Outputs, parted
from nfa.workloads.probe import Probe

FORMS = "(inputs, targets), a dict with labels, a DataLoader, a Dataset"
SEED = 0  # the seed by which examples of a dataset are drawn


def probe_of(
    model: nn.Module,
    loss: Loss,
    given: Any,
    outputs: Outputs,
    *,
    present: Tensor | None,
    examples: int,
    known: Mapping[str, KnownFeatures] | None = None,
) -> Probe:
    """Return a workload of the given examples; from a DataLoader or Dataset take `examples` of them, by class where
    targets are classes.

    Of a DataLoader with a map-style dataset only the items and the collate function are used: neither its order nor its
    worker processes. Items that a SubsetRandomSampler excludes are excluded here too.
    """
    if not _is_dataset(given):
        inputs, targets = given if isinstance(given, tuple | list) and len(given) == 2 else _of_dict(given)
        return Probe(model, loss, inputs, targets, outputs, present, known)
    if present is not None:
        got = "present= with a DataLoader or a Dataset"
        raise Refusal(got, "an attention_mask among the inputs", "pass a batch: a dict with attention_mask and labels")
    batch, drawn = _drawn(given, whole_number("examples", examples))
    return Probe(model, loss, batch.inputs, batch.targets, outputs, batch.present, known, **drawn)


def _is_dataset(given: Any) -> bool:
    """Tell whether this is a dataset; a list of dicts with labels is one too, because the Hugging Face Trainer takes
    it.
    """
    if isinstance(given, list):
        return bool(given) and all(isinstance(item, Mapping) and {*LABELS} & item.keys() for item in given)
    return not isinstance(given, Mapping | tuple | Tensor) and (
        hasattr(given, "__getitem__") or isinstance(given, DataLoader | IterableDataset)
    )


def _of_dict(given: Any) -> tuple[Any, Any]:
    if isinstance(given, Mapping):
        return parted(given)
    raise Refusal(f"a probe that is a {type(given).__name__}", FORMS, "probe=(inputs, targets)")


def _drawn(given: Any, examples: int) -> tuple[Batch, dict[str, Any]]:
    """Return examples, and how they were drawn."""
    if examples < 1:
        raise Refusal(f"examples={examples}", "a whole number ≥ 1", "examples=512")
    dataset, collate = (_of_loader(given), given.collate_fn) if isinstance(given, DataLoader) else (given, None)
    if isinstance(given, DataLoader) and given.batch_size is None and given.batch_sampler is None:
        got = "a DataLoader whose dataset returns whole batches (batch_size=None)"
        raise Refusal(got, FORMS, "pass one of its batches: next(iter(loader))")
    if isinstance(dataset, IterableDataset):
        with untouched():
            items = Items(list(itertools.islice(iter(dataset), examples)), collate)
        return items.batch(range(len(items))), {}
    items = Items(dataset, collate)
    return items.batch(items.order(SEED)[:examples]), {
        "population": len(items),
        "stratified": min(examples, len(items)) <= items.stratified,
    }


def _of_loader(loader: DataLoader[Any]) -> Any:
    """Return the dataset, or the part of it from which the loader draws."""
    for sampler in (loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
        if isinstance(sampler, SubsetRandomSampler):
            return Subset(loader.dataset, sampler.indices)
    return loader.dataset
