"""A model and a few examples of one's own, as a workload."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nfa.errors import Refusal
from nfa.protocols import Batch, ParameterGroups, groups_of_sites

Loss = Callable[[Tensor, Any], Tensor]
Outputs = Callable[[nn.Module, Any], Tensor]


def call(model: nn.Module, inputs: Any) -> Tensor:
    """model(inputs), or model(**inputs) for a mapping; of an answer with `logits` (Hugging Face) those."""
    answer = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    outputs: Tensor = answer if isinstance(answer, Tensor) else answer.logits
    return outputs


class Probe:
    """`inputs` and `targets` hold one row for each example, in tensors or in mappings or lists of tensors.

    `loss(outputs, targets)` gives one loss for each example. `outputs(model, inputs)` is f of the Jacobians.
    """

    name = "probe"
    examples_at_once = 2048

    def __init__(self, network: nn.Module, loss: Loss, inputs: Any, targets: Any, outputs: Outputs = call) -> None:
        self.network, self.loss, self.call = network, loss, outputs
        self.all = Batch(inputs, targets, torch.arange(_rows(inputs)))
        if _rows(targets) != len(self.all):
            got = f"a probe of {len(self.all)} inputs and {_rows(targets)} targets"
            raise Refusal(got, "as many targets as inputs", "give probe=(inputs, targets) of the same examples")

    def model(self) -> nn.Module:
        """The model that is being trained."""
        return self.network

    def ids(self, split: str) -> Sequence[int]:  # noqa: ARG002 - a probe is one split
        return range(len(self.all))

    def batches(self, split: str, *, batch_size: int, ids: Sequence[int] | Tensor | None = None) -> Iterator[Batch]:
        chosen = torch.as_tensor(list(self.ids(split)) if ids is None else ids)
        device = next((parameter.device for parameter in self.network.parameters()), torch.device("cpu"))
        for part in chosen.split(batch_size):
            rows = self.all.map(lambda tensor, part=part: tensor[part.to(tensor.device)].to(device))  # type: ignore[misc]
            yield Batch(rows.inputs, rows.targets, part)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.call(model, batch.inputs)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self.loss(outputs, batch.targets)

    def metrics(self, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:  # noqa: ARG002 - no more than the loss
        return {}

    def classes(self, batch: Batch) -> None:
        """None."""

    def sites(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """All modules."""
        return dict(model.named_modules())

    def readout(self, model: nn.Module) -> str | None:
        return None

    def groups(self, model: nn.Module) -> ParameterGroups:
        return groups_of_sites(model, self.sites(model))


def _rows(value: Any) -> int:
    """Examples in a tensor or in a container of tensors."""
    if isinstance(value, Tensor):
        return len(value)
    rows = [_rows(part) for part in (value.values() if isinstance(value, Mapping) else value)]
    if len(set(rows)) != 1:
        got = f"a probe whose parts have {', '.join(map(str, rows)) or 'no'} rows"
        raise Refusal(got, "one row for each example in every tensor", "give tensors of the same examples")
    return rows[0]
