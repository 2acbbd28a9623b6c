"""A training in its run: taken up again, checkpointed, stopped by signals and troubles, whatever is trained."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nfa.console import bar, stage
from nfa.errors import DivergedError, NfaError, headline
from nfa.registry import tracking
from nfa.registry.signals import Interrupted, shielded, stopped
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.loop import Training


class TrackedTraining:
    """`stored` is the run's config.json. `memory()` is what the state holds beside the training's own.

    With `steps`, an epoch of `training` is one of so many optimizer steps, and checkpoints are named by them.
    """

    def __init__(
        self,
        run: TrackedRun,
        training: Training,
        stored: Mapping[str, Any],
        clock: Stopwatch,
        *,
        name: str,
        steps: int | None = None,
        memory: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.run, self.training, self.stored, self.clock, self.memory = run, training, stored, clock, memory
        self.unit = "epoch" if steps is None else "step"
        self.last = int(stored["train"]["epochs"]) if steps is None else steps
        batches = self.last * training.batches_per_epoch if steps is None else steps
        self.progress = bar(range(batches), name, unit="batch" if steps is None else "step")

    def restore(self) -> dict[str, Any] | None:
        """Take up the run's training state and return it; None where it has none."""
        state = tracking.load_state(self.run) if self.run.continued else None
        if state is None:
            return None
        with tracking.reading_of(self.run.run_id, tracking.STATE):
            self.training.restore(state)
        self.run.metrics.take_up(state.get("metrics", ()))
        at = self.training.progress
        stage("resume", f"at {self.unit} {at.epoch}" + (f", {at.batch} batches into the next" if at.batch else ""))
        self.progress.update(at.epoch * self.training.batches_per_epoch + at.batch)
        return state

    def train(
        self, epochs: int, after_epoch: Callable[[int], None], after_batch: Callable[[], object] = lambda: None
    ) -> None:
        """Train to the last epoch; a signal leaves the state of the last whole step, divergence the last checkpoint."""

        def passed() -> None:
            after_batch()
            self.progress.update()

        try:
            with self.clock.section("training"):
                self.training.run(epochs, after_epoch, passed)
        except Interrupted:
            self._stop()
            raise
        except DivergedError as error:
            kept = tracking.epochs(self.run.run_id)
            hint = f"the last checkpoint is {self.unit} {kept[-1]}" if kept else "there is no checkpoint yet"
            lr = self.stored["train"]["lr"]
            raise DivergedError(f"{error}; {hint}. Try a smaller learning rate than lr={lr}") from None
        except tracking.StoreError as error:
            if stop := stopped():
                self._stop()
                raise stop from error
            remedy = f"mend it (permissions, disk space), then continue with resume={self.run.run_id}"
            raise NfaError(f"the tracking store failed: {headline(error)}\n  do: {remedy}") from error
        finally:
            self.progress.close()

    def _stop(self) -> None:
        """Keep the state of the last whole step; it comes before anything that a silent store could hold up."""
        try:
            tracking.save_state(self.run, self._state())
        except tracking.StoreError as error:
            kept = tracking.unsent_state(self.run.run_id)
            where = f"the next resume on this machine takes it from {kept}" if kept else "the one before it is there"
            stage("notice", f"the training state could not be stored ({headline(error)}); {where}")
        stage("stopped", f"continue with resume={self.run.run_id}")

    def _state(self, *, reported: bool | None = None) -> dict[str, Any]:
        """All that a resume needs; metrics that the store has not taken yet are part of it."""
        waiting = self.run.metrics.waiting()
        return {**self.training.state(reported=reported), **self.memory(), "metrics": waiting}

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Metrics of an epoch; `DivergedError` for one that is not finite."""
        check_finite(epoch, values, self.unit)
        with self.clock.section("tracking"):
            self.run.metrics.log(values, epoch)
        self._tell(epoch, values)

    def checkpoint(self, epoch: int, values: Mapping[str, float]) -> None:
        """Weights, metrics and training state of an epoch, all or nothing."""
        check_finite(epoch, values, self.unit)
        with self.clock.section("tracking"), shielded():
            kept = epoch in self.kept([epoch])
            self.run.metrics.log(values, epoch, self.save(epoch) if kept else None)
            self.run.metrics.flush()
            tracking.save_state(self.run, self._state(reported=True))
            if epoch == 0:
                self.run.tag({"nfa.trained": "true"})
        self._tell(epoch, values)

    def kept(self, schedule: Sequence[int]) -> list[int]:
        """Of these epochs, those whose weights stay."""
        return [epoch for epoch in schedule if not self.run.thrifty or epoch in (0, self.last)]

    def _tell(self, epoch: int, values: Mapping[str, float]) -> None:
        if self.run.listener:
            with self.clock.section("tracking"):
                self.run.listener(epoch, values, epoch >= self.last)

    def save(self, epoch: int) -> str:
        """The model's weights as the checkpoint of an epoch; the id of its LoggedModel."""
        step = epoch * self.training.batches_per_epoch
        named = epoch if self.unit == "epoch" else None
        return tracking.save_checkpoint(self.run, self.training.model, epoch=named, step=step, stored=self.stored)


def check_finite(epoch: int, values: Mapping[str, float], unit: str = "epoch") -> None:
    """`DivergedError` for a metric that is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise DivergedError(f"{name} became {value} in {unit} {epoch}")
