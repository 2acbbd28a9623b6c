"""What the callbacks of all frameworks do: watch a training that somebody else runs, from its begin to its end."""

from typing import Any

import torch.nn as nn

from nfa.console import stage
from nfa.watching import Watch
from nfa.workloads.examples import Loss


class WatchedTraining:
    """Records a training into the active MLflow run, or another `sink`; options are those of `nfa.watch`.

    Where neither `schedule` nor `every` is given, it is every="auto": 5 % of the time at most. The last step counts
    too, except where `schedule` names those that do.
    """

    def __init__(self, loss: Loss, probe: Any, options: dict[str, Any]) -> None:
        self.loss, self.probe = loss, probe
        self.options = options if {"schedule", "every"} & options.keys() else {**options, "every": "auto"}
        self.watch: Watch | None = None

    def begin(self, model: nn.Module, step: int, *, first: bool) -> None:
        """The model's step now, 0 before any update; of several processes the `first` records."""
        self.leave()
        if first:
            self.watch = Watch(model, self.loss, self.probe, step=step, **self.options).__enter__()
            self._record(self.watch, step)

    def after(self, step: int, *, last: bool = False) -> None:
        """Optimizer steps that have been made; told again, as after a batch that only adds to a gradient, it is one.

        `last` where no other will follow.
        """
        if self.watch and step != self.step:
            self._record(self.watch, step)
        if self.watch and last:
            self.watch.record_last(step)

    def _record(self, watch: Watch, step: int) -> None:
        watch.record(step)
        self.step, self.versions = step, _versions(watch.model)

    def end(self, step: int) -> None:
        """The last step, tables and figures; weights that have been replaced since are not recorded as that step's."""
        if self.watch and self.watch.lacks(step):
            if step == self.step and self.versions != _versions(self.watch.model):
                what = f"the weights have been replaced after step {step}, by the best ones or an average"
                stage("notice", f"{what}: the last step is left out")
            else:
                self.watch.record_last(step)
        self.leave()

    def leave(self, error: BaseException | None = None) -> None:
        """Close the watch, if there is one; after an `error` nothing is drawn."""
        if self.watch:
            self.watch.__exit__(type(error) if error else None, error, None)
            self.watch = None

    def give_up(self) -> None:
        """Close the watch of a training that has ended in an error of which nobody was told."""
        if self.watch:
            stage("notice", f"the training that was watched before has ended after step {self.step} without saying so")
            self.leave(RuntimeError("a training that ended without saying so"))


def _versions(model: nn.Module) -> list[tuple[int, int]]:
    """What differs when a trained weight is edited, unless through .data, or replaced."""
    return [(id(weight), weight._version) for weight in model.parameters() if weight.requires_grad]
