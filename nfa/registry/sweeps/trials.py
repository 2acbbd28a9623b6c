"""One trial: a tracked run, or for several seeds a parent run with a training for each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import TrialState

from nfa.bookkeeping import is_bookkeeping
from nfa.console import muted
from nfa.errors import DivergedError, NfaError, Pruned
from nfa.registry import stored_runs, tracking
from nfa.registry.run_names import trial_name
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.sweeps import scores
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.objectives import StudyObjective, keys_of
from nfa.registry.sweeps.samplers import suggest
from nfa.registry.sweeps.trainings import Trainings
from nfa.registry.sweeps.trial_queue import ERROR, PROCESS, RUN, slot_of
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.time_spent import timed

STATE = "state/latest.pt"
OVER = ("finished", "pruned")  # states of a run that need no more work


def objective_key(config: TuneConfig, index: int = 0) -> str:
    """Return the metric key of a trial's objective: `objective`, or objective/KEY if there are several."""
    return "objective" if len(config.objectives) == 1 else f"objective/{config.keys[index].replace('*', 'mean')}"


@dataclass
class ObjectiveListener:
    """Listens to the metrics of a training: logs its objectives so far, and prunes it if it is behind other trials.

    `trial` decides on pruning after every step except the last; None = never.
    """

    config: TuneConfig
    run: TrackedRun
    trial: optuna.Trial | None
    series: dict[str, dict[int, float]] = field(default_factory=dict)
    reported: set[int] = field(default_factory=set)

    def catch_up(self, before: scores.Series) -> None:
        """Process again what a lost process had logged, because its objectives may have been lost."""
        for step in sorted({step for of_key in before.values() for step in of_key}):
            self._take_up(step, {key: of_key[step] for key, of_key in before.items() if step in of_key})

    def __call__(self, step: int, values: Mapping[str, float], last: bool) -> None:
        reached = self._take_up(step, values)
        if reached is not None:
            self._report(step, reached, last)

    def _take_up(self, step: int, values: Mapping[str, float]) -> float | None:
        """Log the objectives so far; return the first one if this step has a value of it."""
        for key, value in values.items():
            self.series.setdefault(key, {}).setdefault(step, value)
        found: dict[int, float] = {}
        for index, objective in enumerate(self.config.objectives):
            reached = scores.score(self.series, objective)
            if reached is not None and keys_of(objective.key, list(values)):
                found[index] = reached
                self.run.metrics.log({objective_key(self.config, index): reached}, step)
        return found.get(0)

    def _report(self, step: int, reached: float, last: bool) -> None:
        if self.trial is None or step == 0 or step in self.reported:
            return
        self.reported.add(step)
        self.trial.report(reached, step)
        if not last and self.trial.should_prune():
            raise Pruned(f"behind the other trials at step {step}: {self.config.keys[0]} {reached:.6g}")


class Trials:
    """Runs the trials of a study whose tracked run is `parent`."""

    def __init__(self, config: TuneConfig, study: optuna.Study, parent: TrackedRun, trainings: Trainings) -> None:
        self.config, self.study, self.parent, self.trainings = config, study, parent, trainings

    def __call__(self, trial: optuna.Trial) -> list[float]:
        """Run a trial and return its objectives; raise `TrialPruned` if it was stopped early or diverged."""
        point = suggest(trial, self.config.axes)
        trial.set_user_attr(PROCESS, tracking.sign())
        return self.ended(trial, point)

    def name(self, trial: optuna.Trial, point: Mapping[str, Any]) -> str:
        """Return the name of a trial's run."""
        return trial_name(slot_of(trial), point)

    def seeds(self, trial: optuna.Trial) -> list[int]:  # noqa: ARG002 - the same for all trials of a search
        """Return the seeds of a trial's trainings."""
        return [self.config.seed + index for index in range(self.config.trial_seeds)]

    def ended(self, trial: optuna.Trial, point: Mapping[str, Any]) -> list[float]:
        """Run the trial at a point and return its objectives; any other end is reported to the study."""
        try:
            return self._values(trial, point)
        except Pruned as behind:
            raise optuna.TrialPruned(str(behind)) from None
        except DivergedError as error:
            # Reported as pruned: samplers learn from pruned trials which regions to avoid, but ignore failed ones.
            trial.set_user_attr(ERROR, str(error))
            raise optuna.TrialPruned(str(error)) from None
        except Exception as error:
            trial.set_user_attr(ERROR, str(error) if isinstance(error, NfaError) else repr(error))
            raise

    def _values(self, trial: optuna.Trial, point: Mapping[str, Any]) -> list[float]:
        run = self._run(trial, point)
        if run is None:
            return self._known(trial)
        with muted(), run:
            return self._judged(trial, self._trained(trial, run, point))

    def _run(self, trial: optuna.Trial, point: Mapping[str, Any]) -> TrackedRun | None:
        """Open the trial's run: a new one, or the one that a lost process has started; None if that has ended."""
        if known := trial.user_attrs.get(RUN):
            found = tracking.find_run(known)
            if found.data.tags.get("nfa.state") in OVER:
                return None
            return self._kept(stored_runs.take_up(known, parent=self.parent))
        tags = {"nfa.trial": str(slot_of(trial)), "nfa.study": self.study.study_name}
        opened = self._open(self.name(trial, point), self.parent, tags)
        trial.set_user_attr(RUN, opened.run_id)
        return opened

    def _open(self, name: str, parent: TrackedRun, tags: Mapping[str, str]) -> TrackedRun:
        family = self.config.family
        return self._kept(tracking.open_run(family.entrypoint, family.name, name=name, parent=parent, tags=tags))

    def _kept(self, run: TrackedRun) -> TrackedRun:
        run.thrifty = self.config.keep_checkpoints == "ends"
        return run

    def _known(self, trial: optuna.Trial) -> list[float]:
        """Return the objectives of a run that ended just before its process was lost."""
        run = tracking.find_run(trial.user_attrs[RUN])
        if run.data.tags.get("nfa.state") == "pruned":
            raise Pruned(run.data.tags.get("nfa.error", ""))
        several = len(self.seeds(trial)) > 1
        below = tracking.children(run.info.run_id, run.info.experiment_id) if several else [run]
        parts = [part.info.run_id for part in below if part.data.tags.get("nfa.state") == "finished"]
        return self._judged(trial, list(tracking.histories(parts).values()))

    def _judged(self, trial: optuna.Trial, every: Sequence[scores.Series]) -> list[float]:
        """Report the trial's constraints to the study, and return its objectives, means over its trainings."""
        averaged = scores.means(every)
        for constraint in self.config.constraints:
            beyond = scores.excess(averaged, constraint)
            if beyond is None:
                why = f"{constraint.key} was not logged because it was never defined"
                raise NfaError(f"{why}, so {constraint} cannot be checked")
            trial.set_constraint(str(constraint), beyond)
        return [self._objective(every, objective) for objective in self.config.objectives]

    def _objective(self, every: Sequence[scores.Series], objective: StudyObjective) -> float:
        values = [scores.score(series, objective) for series in every]
        defined = [value for value in values if value is not None]
        if len(defined) < len(values):
            raise NfaError(f"{objective.key} was not logged because it was never defined in this run")
        return math.fsum(defined) / len(defined)

    def _trained(self, trial: optuna.Trial, run: TrackedRun, point: Mapping[str, Any]) -> list[scores.Series]:
        """Run the trial's trainings and return their series; means over several are logged to the trial's run."""
        seeds = self.seeds(trial)
        if len(seeds) == 1:
            return [self.one(run, point, seeds[0], self.asked(trial), Stopwatch())]
        clock = Stopwatch()
        with timed(run, clock, family=True):
            run.log_params({**point, "seeds": ",".join(map(str, seeds))})
            every = [self._of_seed(trial, run, point, seed, clock) for seed in seeds]
            means = {key: of_key for key, of_key in scores.means(every).items() if not is_bookkeeping(key)}
            for key, of_key in means.items():
                for step, value in of_key.items():
                    run.metrics.log({key: value}, step)
        return every

    def asked(self, trial: optuna.Trial) -> optuna.Trial | None:
        """Return the trial if it may be pruned, else None."""
        return None if self.config.pruning == "none" else trial

    def _of_seed(
        self, trial: optuna.Trial, parent: TrackedRun, point: Mapping[str, Any], seed: int, clock: Stopwatch
    ) -> scores.Series:
        """Run one of several trainings; only the first, which is compared with other trials, may be pruned."""
        name = f"seed {seed}"
        begun = tracking.children(parent.run_id, parent.info.info.experiment_id) if parent.continued else []
        known = next((run for run in begun if run.data.tags.get("nfa.variant") == name), None)
        if known and known.data.tags.get("nfa.state") == "finished":
            return tracking.history(known.info.run_id)
        run = (
            self._kept(stored_runs.take_up(known.info.run_id, parent=parent))
            if known
            else self._open(f"{parent.info.info.run_name}, {name}", parent, {"nfa.variant": name})
        )
        with run, clock.part() as spent:
            return self.one(run, point, seed, self.asked(trial) if seed == self.config.seed else None, spent)

    def one(
        self, run: TrackedRun, point: Mapping[str, Any], seed: int, trial: optuna.Trial | None, clock: Stopwatch
    ) -> scores.Series:
        """Train in an open run, and return its series."""
        listener = ObjectiveListener(self.config, run, trial, reported=_reported(self.study, trial) if trial else set())
        if run.continued:
            listener.catch_up(tracking.history(run.run_id))
        run.listener = listener
        try:
            self.trainings.train(run, self.config.training(point, seed=seed), clock)
        except (Pruned, DivergedError):
            self._save_space(run)
            raise
        self._save_space(run)
        run.metrics.flush()
        return tracking.history(run.run_id)

    def _save_space(self, run: TrackedRun) -> None:
        """Delete the training state, which is not needed after the end of a trial."""
        if run.thrifty:
            tracking.remove(run.info, STATE)


def _reported(study: optuna.Study, trial: optuna.Trial) -> set[int]:
    """Return the steps that a lost process has reported."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return {step for one in running if one.number == trial.number for step in one.intermediate_values}
