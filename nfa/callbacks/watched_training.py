"""What the callbacks of all frameworks do: watch a training that somebody else runs, from its begin to its end."""

from typing import Any

import torch.nn as nn

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
            self.step = step
            self.watch = Watch(model, self.loss, self.probe, step=step, **self.options).__enter__()
            self.watch.record(step)

    def after(self, step: int) -> None:
        """Optimizer steps that have been made; told again, as after a batch that only adds to a gradient, it is one."""
        if self.watch and step != self.step:
            self.step = step
            self.watch.record(step)

    def end(self, step: int) -> None:
        """The last step, tables and figures."""
        if self.watch:
            self.watch.record_last(step)
        self.leave()

    def leave(self, error: BaseException | None = None) -> None:
        """Close the watch, if there is one; after an `error` nothing is drawn."""
        if self.watch:
            self.watch.__exit__(type(error) if error else None, error, None)
            self.watch = None
