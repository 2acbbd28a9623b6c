"""A model and a few examples as a workload."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nfa.errors import Refusal
from nfa.maths.known_features import KnownFeatures
from nfa.observe.autocast import as_around
from nfa.observe.sizes import examples_at_once
from nfa.workload import Batch, Workload
from nfa.workloads.examples import Loss, Outputs, are_classes, call, check_padding, own_outputs, own_positions, rows


class Probe(Workload):
    """A workload of one model and a few examples.

    Args:
        network: The model.
        loss: A function of outputs and targets that returns one loss per example.
        inputs: One row per example, in tensors or in mappings or lists of tensors.
        targets: One row per example.
        outputs: A function of model and inputs that returns the outputs f.
        present: True for positions that belong to an example [n, s]; None takes the attention mask among the inputs.
        known: Known features by site.
        population: The number of examples that these were drawn from; None if it is not known.
        stratified: Whether they were drawn by class, in every prefix.

    Raises:
        Refusal: There are no examples, the numbers of inputs and targets differ, or inputs look padded without a mask.
    """

    name = "probe"

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        inputs: Any,
        targets: Any,
        outputs: Outputs = call,
        present: Tensor | None = None,
        known: Mapping[str, KnownFeatures] | None = None,
        *,
        population: int | None = None,
        stratified: bool = False,
    ) -> None:
        self.drawn_from, self.by_class = population, stratified
        self.network, self.loss, self.call, self.known = network, loss, outputs, dict(known or {})
        if present is None:
            check_padding(inputs)
        self.all = Batch(inputs, targets, torch.arange(rows(inputs)), _own(inputs, present))
        if not len(self.all):
            raise Refusal("a probe without examples", "at least one example", "pass some of the training examples")
        if rows(targets) != len(self.all):
            got = f"a probe of {len(self.all)} inputs and {rows(targets)} targets"
            raise Refusal(got, "as many targets as inputs", "pass probe=(inputs, targets) of the same examples")
        self.device = device_of(network)

    @cached_property
    def examples_at_once(self) -> int:
        """The number of examples whose forward pass fits into a moderate amount of memory."""
        return examples_at_once(self.network, self)

    def model(self) -> nn.Module:
        """Return the model that is being trained."""
        return self.network

    def ids(self, split: str) -> Sequence[int]:  # noqa: ARG002 - a probe is one split
        """Return the ids of all examples; a probe has one split."""
        return range(len(self.all))

    def batches(self, split: str, *, batch_size: int, ids: Sequence[int] | Tensor | None = None) -> Iterator[Batch]:
        """Yield batches on the model's current device."""
        self.device = device_of(self.network)
        chosen = torch.as_tensor(list(self.ids(split)) if ids is None else ids)
        for part in chosen.split(batch_size) if len(chosen) else ():
            yield self.all.take(part.tolist()).to(self.device)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return f, with 0 at padding."""
        with as_around(self.device.type):
            return own_outputs(self.call(model, batch.inputs), batch)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the loss of each example."""
        with as_around(self.device.type):
            return self.loss(outputs, batch.targets)

    def described_loss(self, *, plain: bool) -> str:  # noqa: ARG002 - examples are not weighted
        """Return the name of the loss."""
        return named(self.loss)

    def known_features(self) -> Mapping[str, KnownFeatures]:
        """Return the known features by site."""
        return self.known

    def population(self) -> int | None:
        """Return the number of examples that the probe was drawn from; None if it is not known."""
        return self.drawn_from

    def stratified(self) -> int:
        """Return the number of examples if they were drawn by class, otherwise 0."""
        return len(self.all) if self.by_class else 0

    def classes(self, batch: Batch) -> Tensor | None:
        """Return the targets if they are whole numbers."""
        return batch.targets.long() if are_classes(batch.targets) else None


def _own(inputs: Any, present: Tensor | None) -> Tensor | None:
    if present is None:
        return own_positions(inputs)
    if present.dim() != 2 or len(present) != rows(inputs) or not present.bool().any(dim=1).all():
        got = f"present of shape {tuple(present.shape)} for {rows(inputs)} examples"
        allowed = "shape [examples, positions], true for at least one position of each example"
        raise Refusal(got, allowed, "pass the attention mask")
    return present.bool()


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter.

    Args:
        model: The model.

    Returns:
        The device; the CPU for a model without parameters.
    """
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def named(function: Any) -> str:
    """Return the name of a function or a module.

    Args:
        function: The function or module.

    Returns:
        Its name, or that of its class.
    """
    return str(getattr(function, "__name__", type(function).__name__))
