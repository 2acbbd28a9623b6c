"""Means of per-example losses and metrics over a split."""

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn as nn
from torch import Tensor

from nfa.observe.inertness import inert
from nfa.observe.passes import per_example
from nfa.workload import Batch, Workload


class Evaluation:
    """Accumulate per-example losses and metrics in float64; the result does not depend on the batch size.

    Args:
        workload: The workload whose losses and metrics are evaluated.
    """

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.totals: dict[str, Tensor] = {}
        self.examples = 0

    def update(self, outputs: Tensor, batch: Batch) -> None:
        """Add the outputs of one batch."""
        with torch.no_grad():
            losses = per_example(self.workload.losses(outputs, batch), batch)
            values = {"loss": losses, **self.workload.metrics(outputs, batch)}
            for name, value in values.items():
                self.totals[name] = self.totals.get(name, 0) + value.double().sum()
        self.examples += len(batch)

    def means(self) -> dict[str, float]:
        """Return the mean of each value over all examples; a metric that is NaN for one of them is absent."""
        means = {name: float(total) / self.examples for name, total in self.totals.items()}
        return {name: mean for name, mean in means.items() if name == "loss" or not math.isnan(mean)}


def recorded_by(*listeners: Callable[[Tensor, Batch], None]) -> Callable[[Tensor, Batch], None]:
    """Return one listener that passes outputs and batch on to several listeners.

    Args:
        *listeners: Functions of a batch's outputs and the batch.

    Returns:
        A function that calls all of them.
    """

    def record(outputs: Tensor, batch: Batch) -> None:
        for listener in listeners:
            listener(outputs, batch)

    return record


def record_outputs(
    model: nn.Module, workload: Workload, batches: Iterable[Batch], record: Callable[[Tensor, Batch], None]
) -> None:
    """Pass the outputs of every batch to a function, in evaluation mode.

    Nothing in the model or the random number generators changes.

    Args:
        model: The model.
        workload: The workload that computes the outputs.
        batches: The batches.
        record: The function of a batch's outputs and the batch.
    """
    with inert(model), torch.no_grad():
        for batch in batches:
            record(workload.outputs(model, batch), batch)


def evaluate(model: nn.Module, workload: Workload, batches: Iterable[Batch]) -> dict[str, float]:
    """Return the mean loss and metrics over batches, in evaluation mode.

    Nothing in the model or the random number generators changes.

    Args:
        model: The model.
        workload: The workload that computes losses and metrics.
        batches: The batches.

    Returns:
        The means by name: "loss", and the names of the metrics.
    """
    evaluation = Evaluation(workload)
    record_outputs(model, workload, batches, evaluation.update)
    return evaluation.means()


def evaluate_split(model: nn.Module, workload: Workload, split: str) -> dict[str, float]:
    """Return the mean loss and metrics over a whole split.

    Args:
        model: The model.
        workload: The workload that has the split.
        split: "train", "val" or "test".

    Returns:
        The means by metric key, such as "val/loss".
    """
    means = evaluate(model, workload, workload.batches(split, batch_size=workload.examples_at_once))
    return {f"{split}/{name}": value for name, value in means.items()}
