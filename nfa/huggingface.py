"""`nfa.watch` for the Hugging Face Trainer."""

from typing import Any

import torch.nn as nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nfa.watching import Watch
from nfa.workloads.probe import Loss


class AlignmentCallback(TrainerCallback):
    """Records at the scheduled optimizer steps (0 = before the first) of a Trainer; options are those of `nfa.watch`.

    `Trainer(..., callbacks=[AlignmentCallback(loss, (inputs, targets), schedule="0-100/10")])`, inside an MLflow run.
    """

    def __init__(self, loss: Loss, probe: tuple[Any, Any], **options: Any) -> None:
        self.loss, self.probe, self.options = loss, probe, options
        self.watch: Watch | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any  # noqa: ARG002
    ) -> None:
        model: nn.Module = kwargs["model"]
        self.watch = Watch(model, self.loss, self.probe, **self.options).__enter__()
        self.watch.record(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any  # noqa: ARG002
    ) -> None:
        if self.watch:
            self.watch.record(state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any  # noqa: ARG002
    ) -> None:
        if self.watch:
            self.watch.__exit__(None, None, None)
            self.watch = None
