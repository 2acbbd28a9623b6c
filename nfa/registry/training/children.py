"""Trainings below a parent run, one after another or several at a time; a failure does not stop the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nfa.console import muted, stage
from nfa.errors import NfaError, headline
from nfa.registry import stored_runs, tracking
from nfa.registry.families.protocol import Ids
from nfa.registry.families.registry import family_of
from nfa.registry.run_names import training_name
from nfa.registry.signals import Interrupted
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.comparison import log_headline
from nfa.registry.training.shared_data import SharedData
from nfa.registry.training.tracked import train_one
from nfa.registry.workers import employ


@dataclass(frozen=True)
class Job:
    """A single training below a parent run, as any process can do it.

    Attributes:
        name: Its name among all trainings of the command.
        variant: Its name among the children of its parent, and value of the tag nfa.variant.
        config: Its parameters.
        above: Ids of the runs above it, from its parent to the run that the user continues.
        ids: Example ids that it shares with others; None = drawn by its seed.
    """

    name: str
    variant: str
    config: Any
    above: tuple[str, ...]
    ids: Ids | None = None


class Trainer:
    """Does jobs in this process. Only the newest data are kept, because those of other seeds may differ."""

    def __init__(self) -> None:
        self.data = SharedData(most=1)

    def __call__(self, job: Job) -> None:
        """Train or continue the training, unless it has finished; raise `NfaError` if it fails."""
        parent = tracking.run_of_another(job.above[0])
        found = child_of(parent, job.variant)
        if found and found.data.tags.get("nfa.state") == "finished":
            stage("run", f"{job.name} has already finished")
            return
        stage("training", job.name)
        opened = opened_child(parent, job.variant, job.config, found)
        try:
            with opened as run:
                self._train(job, run)
        finally:
            if tracking.epochs(opened.run_id):
                for run_id in job.above:
                    tracking.run_of_another(run_id).tag({"nfa.trained": "true"})

    def _train(self, job: Job, run: TrackedRun) -> None:
        clock, family = Stopwatch(), family_of(job.config)
        data, begun = self.data.of(job.config, clock), run if stored_runs.has_begun(run.run_id) else None
        train_one(run, family, family.training.prepare(job.config, data, begun, job.ids), clock)
        log_headline(run, family)


class MutedTrainer(Trainer):
    """Does jobs beside other processes, whose lines would be mixed with its own."""

    def __call__(self, job: Job) -> None:
        with muted():
            super().__call__(job)


def train_all(jobs: Sequence[Job], trainer: Trainer, n_workers: int = 1) -> dict[str, str]:
    """Do all jobs, here with `trainer` or in `n_workers` processes; return the reasons of failures by name."""
    try:
        errors = _beside(jobs, n_workers) if n_workers > 1 and jobs else [_error(trainer, job) for job in jobs]
    except Interrupted:
        stage("stopped", f"continue the unfinished trainings with resume={jobs[0].above[-1]}")
        raise
    return {job.name: str(error) for job, error in zip(jobs, errors, strict=True) if error}


def _error(trainer: Trainer, job: Job) -> NfaError | None:
    try:
        trainer(job)
    except NfaError as error:
        return error
    return None


def _beside(jobs: Sequence[Job], n_workers: int) -> list[NfaError | None]:
    number = min(n_workers, len(jobs))
    stage("training", f"{', '.join(job.name for job in jobs)}: {number} at a time")

    def ended(place: int, error: NfaError | None) -> None:
        stage("training", f"{jobs[place].name} has {f'failed: {headline(error)}' if error else 'finished'}")

    return employ(MutedTrainer(), jobs, number, ended=ended)


def variants_below(parent: TrackedRun) -> dict[str, str]:
    """Return the ids of the trainings and groups below a parent by the name of their variant, oldest first."""
    below = tracking.children(parent.run_id, parent.info.info.experiment_id)
    return {run.data.tags["nfa.variant"]: run.info.run_id for run in below if "nfa.variant" in run.data.tags}


def child_of(parent: TrackedRun, variant: str) -> Any:
    """Return the child run of this variant, or None."""
    below = tracking.children(parent.run_id, parent.info.info.experiment_id)
    return next((run for run in below if run.data.tags.get("nfa.variant") == variant), None)


def opened_child(parent: TrackedRun, variant: str, config: Any, found: Any) -> TrackedRun:
    """Return the run of a variant: the one that was started before, or a new one."""
    if found:
        return stored_runs.take_up(found.info.run_id, parent=parent)
    family, name = family_of(config), config.run_name or training_name(config)
    return tracking.open_run(family.entrypoint, family.name, name=name, parent=parent, tags={"nfa.variant": variant})
