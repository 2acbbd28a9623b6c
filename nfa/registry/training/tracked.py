"""A training in its run: description, resume, checkpoints, signals and report, for every family."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nfa.console import bar, stage
from nfa.errors import DivergedError, NfaError, headline
from nfa.parallel import World
from nfa.plain_text import counted
from nfa.registry import tracking
from nfa.registry.commands import command
from nfa.registry.descriptions import continued_by, describe_end, describe_start
from nfa.registry.families.protocol import Family, Ready
from nfa.registry.families.stored import config_digest
from nfa.registry.signals import Interrupted, shielded, stopped
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.config_json import SPACE_MARGIN, data_inputs, write_config
from nfa.registry.training.session import Session
from nfa.registry.training.time_spent import keep_time, timed


def train_one(run: TrackedRun, family: Family, ready: Ready, clock: Stopwatch, world: World | None = None) -> None:
    """Train in `run` up to the last epoch, or resume its training, and report."""
    world = world or World()
    session = family.training.session(run, ready, clock, world)
    tracked = TrackedTraining(run, session, clock, world)
    try:
        tracked.describe()
        trained = family.title(session.stored)
        describe_start(run, trained, continued_by(command(family.entrypoint, resume=run.run_id)))
        with timed(run, clock):
            tracked.restore()
            tracked.train()
            session.finish(tracked)
            stage("time", str(clock))
        described = f"{trained}, {counted(session.last, session.unit)}"
        after = command("analyze", run_id=run.run_id)
        describe_end(run, described, results=session.results(), pictures=session.pictures, after=after)
    finally:
        session.close()


class TrackedTraining:
    """The training of a session in its run; this is the process that tracks."""

    def __init__(self, run: TrackedRun, session: Session, clock: Stopwatch, world: World) -> None:
        self.run, self.session, self.clock, self.world = run, session, clock, world
        self.training, self.unit = session.training, session.unit
        self.per_epoch = self.training.batches_per_epoch if self.unit == "epoch" else 1
        unit = "batch" if self.unit == "epoch" else self.unit
        self.progress = bar(range(session.last * self.per_epoch), session.called, unit=unit)

    def describe(self) -> None:
        """Check the disk space, then store everything about the run that is known before it starts."""
        run, session = self.run, self.session
        with self.clock.section("tracking"):
            self._check_space()
            params = {**session.named_params(), **session.stored["train"]}
            run.log_params({name: value for name, value in params.items() if name != "resume"})
            run.log_datasets(data_inputs(session.stored, session.example_ids))
            for path, tensors in session.tensors().items():
                tracking.put_tensors(run.info, path, tensors)
            write_config(run, session.stored)
            tracking.put_json(run.info, "example_ids.json", session.example_ids)
            if tags := session.tags():
                run.tag(tags)
        for title, text in session.lines():
            stage(title, text)
        session.begin()

    def _check_space(self) -> None:
        weights, final = self.session.space()
        state = weights * self.session.state_copies
        total = weights * (len(self.kept(self.session.schedule)) + 1) + 2 * state + final + SPACE_MARGIN
        tracking.check_space(self.run.info, total=total, largest=max(final, state))

    def restore(self) -> None:
        """Restore the run's training state, if there is one, and send it to the other processes."""
        state = tracking.load_state(self.run) if self.run.continued else None
        if state is not None:
            self._take_up(state)
        self.session.restore(state)
        self.world.broadcast((self.session.config, self.session.told(state)))

    def _take_up(self, state: Mapping[str, Any]) -> None:
        with tracking.reading_of(self.run.run_id, tracking.STATE):
            self.training.restore(state)
        self.run.metrics.take_up(state.get("metrics", ()))
        at = self.training.progress
        stage("resume", f"at {self.unit} {at.epoch}" + (f", {at.batch} batches into the next" if at.batch else ""))
        self.progress.update(at.epoch * self.training.batches_per_epoch + at.batch)

    def train(self) -> None:
        """Train to the last epoch; a signal stores the state after the last step, divergence stores nothing."""

        def passed() -> None:
            self.session.after_batch()
            self.progress.update()

        try:
            with self.clock.section("training"):
                self.training.run(self.session.last, self._after, passed)
        except Interrupted:
            self._stop()
            raise
        except DivergedError as error:
            raise self._diverged(error) from None
        except tracking.StoreError as error:
            if stop := stopped():
                self._stop()
                raise stop from error
            remedy = f"fix it (permissions, disk space), then continue with resume={self.run.run_id}"
            raise NfaError(f"the tracking store failed: {headline(error)}\n  do: {remedy}") from error
        finally:
            self.progress.close()

    def _diverged(self, error: DivergedError) -> DivergedError:
        kept = tracking.epochs(self.run.run_id)
        hint = f"the last checkpoint is {self.unit} {kept[-1]}" if kept else "there is no checkpoint yet"
        lr = self.session.stored["train"]["lr"]
        return DivergedError(f"{error}; {hint}. Try a smaller learning rate than lr={lr}")

    def _after(self, epoch: int) -> None:
        """Measure at the end of an epoch, and store metrics and a scheduled checkpoint completely or not at all."""
        checkpoint = epoch in self.session.schedule
        values = self.session.measure(epoch, checkpoint=checkpoint)
        if values is None:
            return
        self._check_finite(epoch, values)
        self.session.draw(epoch, values, checkpoint=checkpoint)
        if checkpoint:
            self._checkpoint(epoch, values)
            keep_time(self.run, self.clock)
        else:
            self.log(epoch, values)
        if line := self.session.line(epoch, values):
            stage(f"{self.unit} {epoch}", line)

    def _stop(self) -> None:
        """Store the state after the last step, before anything that an unresponsive store could delay."""
        try:
            tracking.save_state(self.run, self._state())
        except tracking.StoreError as error:
            kept = tracking.unsent_state(self.run.run_id)
            where = f"the next resume on this machine uses {kept}" if kept else "the previous one is kept"
            stage("notice", f"the training state could not be stored ({headline(error)}); {where}")
        stage("stopped", f"continue with resume={self.run.run_id}")

    def _state(self, *, reported: bool | None = None) -> dict[str, Any]:
        """Return all that resuming needs, including metrics that the store has not accepted yet."""
        waiting = self.run.metrics.waiting()
        return {**self.training.state(reported=reported), **self.session.memory(), "metrics": waiting}

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Log metrics of an epoch; raise `DivergedError` for one that is not finite."""
        self._check_finite(epoch, values)
        with self.clock.section("tracking"):
            self.run.metrics.log(values, epoch)
        self._tell(epoch, values)

    def _checkpoint(self, epoch: int, values: Mapping[str, float]) -> None:
        """Store weights, metrics and training state of an epoch completely or not at all."""
        with self.clock.section("tracking"), shielded():
            self.run.metrics.log(values, epoch, self.save(epoch) if epoch in self.kept([epoch]) else None)
            self.run.metrics.checkpoint(self.run.info)
            tracking.save_state(self.run, self._state(reported=True))
            if epoch == 0:
                self.run.tag({"nfa.trained": "true"})
        self._tell(epoch, values)

    def kept(self, schedule: Sequence[int]) -> list[int]:
        """Return those of the scheduled epochs whose checkpoints are kept."""
        return [epoch for epoch in schedule if not self.run.thrifty or epoch in (0, self.session.last)]

    def _tell(self, epoch: int, values: Mapping[str, float]) -> None:
        if self.run.listener:
            with self.clock.section("tracking"):
                self.run.listener(epoch, values, epoch >= self.session.last)

    def save(self, epoch: int) -> str:
        """Store the model as the checkpoint of an epoch; return the id of its LoggedModel."""
        step = epoch * self.training.batches_per_epoch
        number, digest = epoch if self.unit == "epoch" else None, config_digest(self.session.stored)
        said = self.session.sample_answers()
        return tracking.save_checkpoint(
            self.run, self.training.model, epoch=number, step=step, config_digest=digest, answers=said
        )

    def _check_finite(self, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise DivergedError(f"{name} became {value} in {self.unit} {epoch}")
