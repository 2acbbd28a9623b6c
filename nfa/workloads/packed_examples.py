"""Inputs of a few examples as a file of tensors, so that a later model can be run on the same inputs."""

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
    """The content of a safetensors file: tensors by name, and metadata that say how to assemble them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def packed(batch: Batch) -> Packed | None:
    """Pack the inputs of a batch and their masks, without the targets.

    Args:
        batch: The batch.

    Returns:
        The tensors and metadata; None for inputs of more than 16 MiB, and for inputs that contain anything but tensors,
        dicts, lists and tuples.

    Example:
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
    """Return the batch that `packed` was given, without targets and with ids that count from 0.

    It raises KeyError, TypeError, ValueError and others for anything else: call it within `nfa.errors.reading`.

    Args:
        tensors: The tensors by name.
        metadata: The metadata.

    Returns:
        The batch.
    """
    inputs = _content(json.loads(metadata[FORM]), tensors)
    return Batch(inputs, None, torch.arange(rows(inputs)), tensors.get(PRESENT))


def _form(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the name of a tensor, which is added, or the kind of a container with the forms of its parts.

    TypeError for anything else.
    """
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
