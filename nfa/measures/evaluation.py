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
    """Adds up per-example losses and metrics in float64; the result does not depend on how examples are batched."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.totals: dict[str, Tensor] = {}
        self.examples = 0

    def update(self, outputs: Tensor, batch: Batch) -> None:
        with torch.no_grad():
            losses = per_example(self.workload.losses(outputs, batch), batch)
            values = {"loss": losses, **self.workload.metrics(outputs, batch)}
            for name, value in values.items():
                self.totals[name] = self.totals.get(name, 0) + value.double().sum()
        self.examples += len(batch)

    def means(self) -> dict[str, float]:
        """Mean of each value over all examples recorded; without metrics that are not a number for one of them."""
        means = {name: float(total) / self.examples for name, total in self.totals.items()}
        return {name: mean for name, mean in means.items() if name == "loss" or not math.isnan(mean)}


def recorded_by(*listeners: Callable[[Tensor, Batch], None]) -> Callable[[Tensor, Batch], None]:
    """One listener that passes outputs and batch on to several."""

    def record(outputs: Tensor, batch: Batch) -> None:
        for listener in listeners:
            listener(outputs, batch)

    return record


def record_outputs(
    model: nn.Module, workload: Workload, batches: Iterable[Batch], record: Callable[[Tensor, Batch], None]
) -> None:
    """Tell `record` the outputs of every batch, in evaluation mode; nothing in the model or the generators changes."""
    with inert(model), torch.no_grad():
        for batch in batches:
            record(workload.outputs(model, batch), batch)


def evaluate(model: nn.Module, workload: Workload, batches: Iterable[Batch]) -> dict[str, float]:
    """Mean loss and metrics over `batches`, in evaluation mode; nothing in the model or the generators changes."""
    evaluation = Evaluation(workload)
    record_outputs(model, workload, batches, evaluation.update)
    return evaluation.means()


def evaluate_split(model: nn.Module, workload: Workload, split: str) -> dict[str, float]:
    """The same over a whole split, by metric key: "val/loss" …"""
    means = evaluate(model, workload, workload.batches(split, batch_size=workload.examples_at_once))
    return {f"{split}/{name}": value for name, value in means.items()}
