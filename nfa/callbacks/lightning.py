"""`nfa.watch` as a callback of Lightning's Trainer."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nfa.callbacks.watched_training import WatchedTraining
from nfa.errors import Refusal
from nfa.workloads.examples import Loss


class WatchCallback(Callback):
    """Record a Trainer's optimizer steps into the active MLflow run, or another `sink`.

        Trainer(..., callbacks=[WatchCallback(loss, probe, studies="alignment,flow", checkpoints=True)])

    Steps are counted by `trainer.global_step`; step 0 is the model before the first update. The last step is recorded
    too, unless `schedule` names the steps. With several processes the first one records. To continue the run of a
    resumed training (`ckpt_path=`), start it inside `with mlflow.start_run(run_id=…)`.

    Args:
        loss: A function of outputs and targets that returns one loss per example.
        probe: The examples that are analysed, as `nfa.watch` takes them.
        module: The name of the part of the LightningModule that is watched, such as "net"; empty watches the whole
            module, called by its own forward.
        **options: Other arguments of `nfa.watch`. Without `schedule` and `every`, every="auto" applies: recording takes
            at most 5 % of the time.

    Raises:
        Refusal: The model cannot be analysed, or has no part of that name; raised when training begins.
    """

    def __init__(self, loss: Loss, probe: Any, *, module: str = "", **options: Any) -> None:
        self.training, self.module = WatchedTraining(loss, probe, options), module

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the model before its first update, or before the next one of a resumed training."""
        parts = dict(pl_module.named_modules())
        if self.module not in parts:
            allowed = ", ".join(name for name in parts if name and "." not in name)
            raise Refusal(f"module={self.module!r}", f"a part of the module: {allowed}, …", "leave module out")
        self.training.begin(parts[self.module], trainer.global_step, first=trainer.is_global_zero)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int  # noqa: ARG002
    ) -> None:
        """Record the step if it is due."""
        self.training.after(trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Record the last step, and write tables and figures."""
        self.training.end(trainer.global_step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Close the watch without drawing anything."""
        self.training.leave(exception)
