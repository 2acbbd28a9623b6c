"""What the callbacks of all frameworks have in common: they watch a training loop from its beginning to its end."""

from typing import Any

import torch.nn as nn

from nfa.console import stage
from nfa.watching import Watch
from nfa.workloads.examples import Loss


class WatchedTraining:
    """Record a training into the active MLflow run, or another `sink`.

    The last step is recorded too, unless `schedule` names the steps.

    Args:
        loss: A function of outputs and targets that returns one loss per example.
        probe: The examples that are analysed, as `nfa.watch` takes them.
        options: Other arguments of `nfa.watch`. Without `schedule` and `every`, every="auto" applies: recording takes
            at most 5 % of the time.
    """

    def __init__(self, loss: Loss, probe: Any, options: dict[str, Any]) -> None:
        self.loss, self.probe = loss, probe
        self.options = options if {"schedule", "every"} & options.keys() else {**options, "every": "auto"}
        self.watch: Watch | None = None

    def begin(self, model: nn.Module, step: int, *, first: bool) -> None:
        """Record the model at its current step, 0 before any update; with several processes only the `first` records.
        """
        self.leave()
        if first:
            self.watch = Watch(model, self.loss, self.probe, step=step, **self.options).__enter__()
            self._record(self.watch, step)

    def after(self, step: int, *, last: bool = False) -> None:
        """Record a step if it is due; `last` if no other step follows.

        A framework may report the same step again, as after a batch that only accumulates a gradient; it is recorded
        once.
        """
        if self.watch and step != self.step:
            self._record(self.watch, step)
        if self.watch and last:
            self.watch.record_last(step)

    def _record(self, watch: Watch, step: int) -> None:
        watch.record(step)
        self.step, self.versions = step, _versions(watch.model)

    def end(self, step: int) -> None:
        """Record the last step, and write tables and figures.

        If the weights have been replaced since that step, they are not recorded under it.
        """
        if self.watch and self.watch.lacks(step):
            if step == self.step and self.versions != _versions(self.watch.model):
                what = f"the weights were replaced after step {step}, by the best ones or by an average"
                stage("notice", f"{what}, so the last step is not recorded")
            else:
                self.watch.record_last(step)
        self.leave()

    def leave(self, error: BaseException | None = None) -> None:
        """Close the watch, if there is one; after an `error` nothing is drawn."""
        if self.watch:
            self.watch.__exit__(type(error) if error else None, error, None)
            self.watch = None

    def give_up(self) -> None:
        """Close the watch of a training that ended in an error without reporting it."""
        if self.watch:
            stage("notice", f"the training that was watched before ended after step {self.step} without reporting it")
            self.leave(RuntimeError("a training ended without reporting it"))


def _versions(model: nn.Module) -> list[tuple[int, int]]:
    """Return a value that changes when a trainable weight is replaced, or edited other than through .data."""
    return [(id(weight), weight._version) for weight in model.parameters() if weight.requires_grad]
