"""`nfa.watch` for the Hugging Face Trainer."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nfa.watching import Watch
from nfa.workloads.examples import Loss


class AlignmentCallback(TrainerCallback):
    """Records optimizer steps (0 = before the first) of a Trainer into the active MLflow run, or another `sink`.

    `Trainer(..., callbacks=[AlignmentCallback(loss, probe, studies="alignment,flow")])`. Options are those of
    `nfa.watch`; where neither `schedule` nor `every` is given, it is every="auto": 5 % of the time at most. The last
    step counts too, except where `schedule` names those that do. Of several processes the first records.
    """

    def __init__(self, loss: Loss, probe: Any, **options: Any) -> None:
        self.loss, self.probe = loss, probe
        self.options = options if {"schedule", "every"} & options.keys() else {**options, "every": "auto"}
        self.watch: Watch | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any  # noqa: ARG002
    ) -> None:
        self._leave()
        if not state.is_world_process_zero:
            return
        step = state.global_step
        self.watch = Watch(kwargs["model"], self.loss, self.probe, step=step, **self.options).__enter__()
        self.watch.record(step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any  # noqa: ARG002
    ) -> None:
        if self.watch:
            self.watch.record(state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any  # noqa: ARG002
    ) -> None:
        if self.watch:
            self.watch.record_last(state.global_step)
        self._leave()

    def _leave(self) -> None:
        if self.watch:
            self.watch.__exit__(None, None, None)
            self.watch = None
