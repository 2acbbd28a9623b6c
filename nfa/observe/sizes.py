"""The memory of a forward pass, from which the batch size is chosen."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nfa.observe.inertness import inert
from nfa.workload import Batch, Workload

NUMBERS = 2**23  # numbers per forward pass; with more, layers allocate memory anew, and a CNN takes twice as long


def examples_at_once(model: nn.Module, workload: Workload) -> int:
    """Return the number of examples whose forward pass creates at most eight million numbers, up to 2,048."""
    few = next(iter(workload.batches("train", batch_size=2)))
    return max(1, min(2048, NUMBERS // numbers_of(model, workload, few)))


def numbers_of(model: nn.Module, workload: Workload, batch: Batch) -> int:
    """Return how many numbers the functions of a forward pass create per example."""
    counter = _Counter()
    with inert(model), torch.no_grad(), counter:
        workload.outputs(model, batch)
    return max(1, counter.numbers // len(batch))


class _Counter(TorchFunctionMode):
    """Count the numbers that functions return."""

    numbers: int = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        output = func(*args, **(kwargs or {}))
        self.numbers += output.numel() if isinstance(output, Tensor) else 0
        return output
