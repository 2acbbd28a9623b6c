"""`nfa.watch` as a callback of the Hugging Face Trainer."""

from typing import Any
from weakref import WeakSet

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nfa.callbacks.watched_training import WatchedTraining
from nfa.workloads.examples import Loss

_begun: WeakSet["WatchCallback"] = WeakSet()  # in this process; callbacks are not informed when a Trainer fails


class WatchCallback(TrainerCallback):
    """Record a Trainer's optimizer steps into the active MLflow run, or another `sink`.

        Trainer(..., callbacks=[WatchCallback(loss, probe, studies="alignment,flow", checkpoints=True)])

    Step 0 is the model before the first update. The last step is recorded too, unless `schedule` names the steps. With
    several processes the first one records. To continue the run of a resumed Trainer, start it inside `with
    mlflow.start_run(run_id=…)`.

    Args:
        loss: A function of outputs and targets that returns one loss per example.
        probe: The examples that are analysed, as `nfa.watch` takes them.
        **options: Other arguments of `nfa.watch`. Without `schedule` and `every`, every="auto" applies: recording takes
            at most 5 % of the time.

    Raises:
        Refusal: The model cannot be analysed; raised when training begins.
    """

    def __init__(self, loss: Loss, probe: Any, **options: Any) -> None:
        self.training = WatchedTraining(loss, probe, options)
        self.of: TrainerState | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any  # noqa: ARG002
    ) -> None:
        """Record the model before its first update, or before the next one of a resumed training."""
        for other in [one for one in _begun if one.of is not state]:
            other.training.give_up()
        self.of = state
        _begun.add(self)
        self.training.begin(kwargs["model"], state.global_step, first=state.is_world_process_zero)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any  # noqa: ARG002
    ) -> None:
        """Record the step if it is due."""
        self.training.after(state.global_step, last=control.should_training_stop)

    on_evaluate = on_save = on_step_end  # their results may stop the training before its best weights are loaded

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any  # noqa: ARG002
    ) -> None:
        """Record the last step, and write tables and figures."""
        self.training.end(state.global_step)
