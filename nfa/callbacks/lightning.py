"""`nfa.watch` for Lightning's Trainer."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nfa.callbacks.watched_training import WatchedTraining
from nfa.errors import Refusal
from nfa.workloads.examples import Loss


class WatchCallback(Callback):
    """Records optimizer steps (0 = before the first) of a Trainer into the active MLflow run, or another `sink`.

        Trainer(..., callbacks=[WatchCallback(loss, probe, studies="alignment,flow", checkpoints=True)])

    `module` names the part of the LightningModule that is watched, such as "net"; without it that is the whole, by its
    own forward. Other options are those of `nfa.watch`; where neither `schedule` nor `every` is given, it is
    every="auto": 5 % of the time at most. Steps are those of `trainer.global_step`; the last one counts too, except
    where `schedule` names those that do. Of several processes the first records. A training that is resumed
    (`ckpt_path=`) goes on in its run: `with mlflow.start_run(run_id=…)`.
    """

    def __init__(self, loss: Loss, probe: Any, *, module: str = "", **options: Any) -> None:
        self.training, self.module = WatchedTraining(loss, probe, options), module

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        parts = dict(pl_module.named_modules())
        if self.module not in parts:
            allowed = ", ".join(name for name in parts if name and "." not in name)
            raise Refusal(f"module={self.module!r}", f"a part of the module: {allowed}, …", "leave module out")
        self.training.begin(parts[self.module], trainer.global_step, first=trainer.is_global_zero)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int  # noqa: ARG002
    ) -> None:
        self.training.after(trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.training.end(trainer.global_step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        self.training.leave(exception)
