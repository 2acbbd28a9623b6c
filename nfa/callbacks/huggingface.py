"""`nfa.watch` for the Hugging Face Trainer."""

from typing import Any
from weakref import WeakSet

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nfa.callbacks.watched_training import WatchedTraining
from nfa.workloads.examples import Loss

_begun: WeakSet["WatchCallback"] = WeakSet()  # of this process: no callback is told when a Trainer fails


class WatchCallback(TrainerCallback):
    """Records optimizer steps (0 = before the first) of a Trainer into the active MLflow run, or another `sink`.

        Trainer(..., callbacks=[WatchCallback(loss, probe, studies="alignment,flow", checkpoints=True)])

    Options are those of `nfa.watch`; where neither `schedule` nor `every` is given, it is every="auto": 5 % of the time
    at most. The last step counts too, except where `schedule` names those that do. Of several processes the first
    records. A Trainer that is resumed goes on in its run: `with mlflow.start_run(run_id=…)`.
    """

    def __init__(self, loss: Loss, probe: Any, **options: Any) -> None:
        self.training = WatchedTraining(loss, probe, options)
        self.of: TrainerState | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any  # noqa: ARG002
    ) -> None:
        for other in [one for one in _begun if one.of is not state]:
            other.training.give_up()
        self.of = state
        _begun.add(self)
        self.training.begin(kwargs["model"], state.global_step, first=state.is_world_process_zero)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any  # noqa: ARG002
    ) -> None:
        self.training.after(state.global_step, last=control.should_training_stop)

    on_evaluate = on_save = on_step_end  # what is found then may stop the training, before its best weights are loaded

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any  # noqa: ARG002
    ) -> None:
        self.training.end(state.global_step)
