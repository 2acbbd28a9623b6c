"""Inputs of a few examples as a file of tensors, so that another model can be asked the same questions later."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nfa.workload import Batch
from nfa.workloads.examples import rows

PROBE_EXAMPLES = "probe_examples.safetensors"  # what the file is called among the artifacts of a run
LARGEST = 16 * 2**20  # bytes of inputs that are stored
FORM, PRESENT = "form", "present"
CONTAINERS: Mapping[str, type[list[Any]] | type[tuple[Any, ...]]] = {"list": list, "tuple": tuple}


class Packed(NamedTuple):
    """Tensors by name, and metadata that say what they are put together to: what a safetensors file holds."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def packed(batch: Batch) -> Packed | None:
    """Inputs of a batch, and which of their positions are its own, without its targets.

    None for inputs of more than 16 MiB, and for those that are no tensors, nor dicts, lists or tuples of them.

    >>> found = packed(Batch({"a": torch.ones(2, 3)}, None, torch.arange(2)))
    >>> list(found.tensors), found.metadata
    (['0'], {'form': '{"dict": {"a": "0"}}'})
    """
    tensors: dict[str, Tensor] = {}
    try:
        form = json.dumps(_form(batch.inputs, tensors))
    except TypeError:
        return None
    if sum(tensor.nbytes for tensor in tensors.values()) > LARGEST:
        return None
    present = {} if batch.present is None else {PRESENT: batch.present}
    return Packed({**tensors, **present}, {FORM: form})


def unpacked(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Batch:
    """The batch of what `packed` has given: its inputs as they were, no targets, and ids that count from 0.

    KeyError, TypeError, ValueError … for anything else: call it within `nfa.errors.reading`.
    """
    inputs = _content(json.loads(metadata[FORM]), tensors)
    return Batch(inputs, None, torch.arange(rows(inputs)), tensors.get(PRESENT))


def _form(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Name of a tensor that is added, or the kind of a container with the forms of its parts; TypeError for others."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return name
    kind = type(value).__name__
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {kind: {key: _form(part, tensors) for key, part in value.items()}}
    if type(value) in CONTAINERS.values():
        return {kind: [_form(part, tensors) for part in value]}
    raise TypeError(kind)


def _content(form: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(form, str):
        return tensors[form]
    ((kind, parts),) = form.items()
    if kind == "dict":
        return {key: _content(part, tensors) for key, part in parts.items()}
    return CONTAINERS[kind](_content(part, tensors) for part in parts)
