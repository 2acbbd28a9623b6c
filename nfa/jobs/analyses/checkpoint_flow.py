"""Gradient flow at the checkpoints of one stored run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nfa import tracking
from nfa.config import GradientFlowConfig
from nfa.console import bar, stage
from nfa.errors import Refusal
from nfa.evaluation import hear_outputs
from nfa.losses.objectives import MeanLoss
from nfa.measures.mean_gradient import Losses, mean_gradient
from nfa.measures.parameter_groups import relative_changes, root_mean_squares
from nfa.protocols import Batch, ParameterGroups
from nfa.studies.gradient_flow import gradient_flow
from nfa.tracking import TrackedRun

DEFAULT_N = GradientFlowConfig().n
COPIED = ("val/pearson", "val/accuracy")
NO_OUTPUT = "the layer that gives the outputs is not trained: there are no ratios of a part to the output"


class CheckpointFlow:
    """What `config` asks of the run `source`; making one loads the data and refuses what cannot be done."""

    def __init__(self, source: str, config: GradientFlowConfig, epochs: Sequence[int]) -> None:
        self.source, self.config, self.unit = source, config, tracking.unit(source)
        self.workload = tracking.load_workload(source, device=config.device, data_dir=config.data_dir or None)
        self.model = self.workload.model()
        self.groups: ParameterGroups = self.workload.groups(self.model)
        self.start = tracking.weights(source, 0) if 0 in tracking.epochs(source) else None
        self.ids = self._examples()
        self.batch_size = min(config.batch_size, self.workload.examples_at_once)
        tracking.load_weights(self.model, source, epochs[0])
        self.logged = {key: of_key for key, of_key in tracking.history(source).items() if _is_copied(key)}
        self._told = False

    def _examples(self) -> list[int]:
        """The first of the stored probe."""
        probe, n = list(self.workload.ids("probe")), self.config.n
        if n > len(probe) and n != DEFAULT_N:
            raise Refusal(f"n={n}", f"1 to {len(probe)}, the run's training examples", f"n={len(probe)}")
        return probe[:n]

    def _batches(self) -> Any:
        return self.workload.batches("train", batch_size=self.batch_size, ids=self.ids)

    def described(self) -> Mapping[str, Any]:
        """Groups, examples and conventions."""
        plain = self.config.loss == "plain"
        said = {
            "grad_rms": "root mean square over a group's parameters of the mean gradient, evaluation mode",
            "weight_change": "|W_t - W_0| / |W_0|",
            "update_ratio": "|dW| / |W| of the last training step before the checkpoint, logged by training",
            "grad_norm": "norm of that step's gradient before clipping, logged by training",
            "loss": self.workload.described_loss(plain=plain),
            "examples": len(self.ids),
        }
        return {"groups": dataclasses.asdict(self.groups), "examples": self.ids, "conventions": said}

    def values(self, epoch: int, run: TrackedRun) -> dict[str, float]:  # noqa: ARG002 - there are no arrays
        """Series of a checkpoint."""
        self._announce()
        weights = tracking.load_weights(self.model, self.source, epoch)
        batches = bar(
            self._batches(), f"{self.unit} {epoch}", total=-(-len(self.ids) // self.batch_size), unit="batch"
        )
        gradients = mean_gradient(self.workload, self.model, batches, self._losses())
        rms = root_mean_squares(self.groups.names, gradients)
        changes = relative_changes(self.groups.names, self.start, weights) if self.start and epoch else {}
        trained = {key: of_key[epoch] for key, of_key in self.logged.items() if epoch in of_key}
        return gradient_flow(rms, changes, trained, self.groups)

    def _losses(self) -> Losses | None:
        """What is differentiated; None = the workload's own loss."""
        objective = self.workload.objective()
        if self.config.loss == "plain" or isinstance(objective, MeanLoss):
            return None
        seen: list[tuple[Tensor, Batch]] = []
        hear_outputs(self.model, self.workload, self._batches(), lambda *heard: seen.append(heard))
        return objective.fixed(seen)

    def _announce(self) -> None:
        if self._told:
            return
        self._told = True
        roles = f"front {self.groups.front}, back {self.groups.back}, output {self.groups.output or 'none'}"
        stage("groups", f"{len(self.groups.names)}: {roles}; {len(self.ids)} examples")
        if self.groups.output is None:
            stage("notice", NO_OUTPUT)
        if not any(key.startswith("flow/") for key in self.logged):
            stage(
                "notice", "the run's training has logged no updates: update ratios and gradient norm are not measured"
            )
        if self.start is None:
            stage("notice", "there is no checkpoint 0: weight changes are not measured")


def _is_copied(key: str) -> bool:
    return key.startswith("flow/") or key in COPIED
