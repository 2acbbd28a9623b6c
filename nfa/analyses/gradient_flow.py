"""The study `gradient_flow`: its options are checked against a workload, and one model after another is measured."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch.nn as nn
from torch import Tensor

from nfa.analyses.parameters import FlowParameters
from nfa.console import bar, stage
from nfa.errors import Refusal
from nfa.measures.evaluation import record_outputs
from nfa.measures.mean_gradient import Losses, mean_gradient
from nfa.measures.parameter_groups import relative_changes, root_mean_squares
from nfa.observe.checks import check_trained
from nfa.observe.coverage import coverage
from nfa.observe.door import EXAMPLES
from nfa.plain_text import counted
from nfa.studies.gradient_flow import gradient_flow
from nfa.workload import Batch, MeanLoss, Workload

DEFAULT_N = FlowParameters().n
NO_OUTPUT = "the layer that produces the outputs has no trainable weight of its own, so ratios to the output are absent"


class FlowAnalysis:
    """Measure the gradient flow of one model after another.

    Creating one checks the model.

    Args:
        workload: The workload.
        model: The model in any of its states.
        config: The options.
        start: The weights before the first update by parameter name; None if they are not known.

    Raises:
        Refusal: Model and options do not fit together.
    """

    def __init__(
        self, workload: Workload, model: nn.Module, config: FlowParameters, start: Mapping[str, Tensor] | None
    ) -> None:
        self.workload, self.config, self.start = workload, config, start
        self.groups = workload.groups(model)
        self.coverage = coverage(model, {name for names in self.groups.names.values() for name in names})
        self.ids = self._examples()
        self.batch_size = min(config.batch_size, workload.examples_at_once)
        few = workload.batches("train", batch_size=EXAMPLES, ids=self.ids[:EXAMPLES])
        check_trained(model, workload, next(iter(few)))

    def _examples(self) -> list[int]:
        """Return the first examples of the stored probe."""
        probe, n = list(self.workload.ids("probe")), self.config.n
        if n > len(probe) and n != DEFAULT_N:
            raise Refusal(f"n={n}", f"1 to {len(probe)}, the run's training examples", f"n={len(probe)}")
        return probe[:n]

    def _batches(self) -> Iterator[Batch]:
        return self.workload.batches("train", batch_size=self.batch_size, ids=self.ids)

    def described(self) -> Mapping[str, Any]:
        """Return groups, examples and conventions, to be stored beside the values."""
        plain = self.config.loss == "plain"
        said = {
            "grad_rms": "root mean square over a group's parameters of the mean gradient, evaluation mode",
            "weight_change": "|W_t - W_0| / |W_0|",
            "update_ratio": "|dW| / |W| of the last training step before the checkpoint, logged by training",
            "grad_norm": "norm of that step's gradient before clipping, logged by training",
            "loss": self.workload.described_loss(plain=plain),
            "examples": len(self.ids),
        }
        groups = dataclasses.asdict(self.groups)
        return {"groups": groups, "examples": self.ids, "coverage": self.coverage, "conventions": said}

    def __call__(
        self,
        model: nn.Module,
        trained: Mapping[str, float] = {},
        *,
        moved: bool = True,
        progress: str = "",
        record_outputs: Callable[[Tensor, Batch], None] | None = None,
    ) -> dict[str, float]:
        """Measure a model.

        Args:
            model: The model.
            trained: What its training has logged, by metric key.
            moved: Whether the model has been trained; before the first update there is no weight change.
            progress: The label of a progress bar; empty shows none.
            record_outputs: A function that receives each batch's outputs.

        Returns:
            The values by metric key.
        """
        batches: Iterable[Batch] = self._batches()
        if progress:
            batches = bar(batches, progress, total=-(-len(self.ids) // self.batch_size), unit="batch")
        gradients = mean_gradient(self.workload, model, batches, self._losses(model), record_outputs=record_outputs)
        rms = root_mean_squares(self.groups.names, gradients)
        weights = dict(model.named_parameters())
        changes = relative_changes(self.groups.names, self.start, weights) if self.start and moved else {}
        return gradient_flow(rms, changes, trained, self.groups)

    def _losses(self, model: nn.Module) -> Losses | None:
        """Return the loss that is differentiated; None stands for the workload's own."""
        objective = self.workload.objective()
        if self.config.loss == "plain" or isinstance(objective, MeanLoss):
            return None
        seen: list[tuple[Tensor, Batch]] = []
        record_outputs(model, self.workload, self._batches(), lambda *recorded: seen.append(recorded))
        return objective.fixed(seen)

    def announce(self) -> None:
        """Print groups and roles, and what cannot be measured."""
        roles = f"front {self.groups.front}, back {self.groups.back}, output {self.groups.output or 'none'}"
        stage("groups", f"{counted(len(self.groups.names), 'group')}: {roles}; {counted(len(self.ids), 'example')}")
        if self.groups.output is None:
            stage("notice", NO_OUTPUT)
