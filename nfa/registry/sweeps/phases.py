"""Run trials to their end, in this process or in several others, while the study's run is kept up to date."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import optuna

from nfa.console import bar, stage
from nfa.errors import NfaError
from nfa.registry.signals import Interrupted
from nfa.registry.sweeps import trial_queue
from nfa.registry.sweeps.announcements import tell
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.workers import Assignment, Objective, work
from nfa.registry.workers import employ


@dataclass(frozen=True)
class Phase:
    """Trials of a study in a database: those of the search, or those of the confirmation.

    `objective` runs a trial in this process, and `begin` runs trials in another one. `follow` is called regularly.
    Users continue the phase by the name of the study `search`.
    """

    study: optuna.Study
    objective: Objective
    begin: Callable[[Assignment], None]
    follow: Callable[[], None]
    title: str
    search: str


def run_phase(config: TuneConfig, phase: Phase, parent_id: str, until: float = math.inf) -> None:
    """Run trials until all have ended or time is up; raise `NfaError` if trials are left that no process works on."""
    study = phase.study
    assignment = Assignment(config, study.study_name, parent_id, until, os.getpid())
    total = len(trial_queue.latest(study.get_trials(deepcopy=False)))
    progress = bar(range(total), phase.title, unit="trial")

    def watch() -> None:
        phase.follow()
        trials = trial_queue.latest(study.get_trials(deepcopy=False))
        progress.update(sum(trial.state.is_finished() for trial in trials.values()) - progress.n)

    def said(slot: int) -> None:
        tell(study, config, phase.title, slot)
        watch()

    watch()
    try:
        if config.n_workers == 1:
            work(study, phase.objective, assignment, said)
        else:
            errors = employ(phase.begin, [assignment] * config.n_workers, config.n_workers, watch=watch)
            for error in filter(None, errors):
                raise error
    except Interrupted:
        stage("stopped", f"continue with study_name={phase.search}")
        raise
    finally:
        progress.close()
    watch()
    _check_whole(phase, until)


def _check_whole(phase: Phase, until: float) -> None:
    counts = trial_queue.counts(trial_queue.latest(phase.study.get_trials(deepcopy=False)))
    left = counts.get("waiting", 0) + counts.get("running", 0)
    if left and time.time() >= until:
        stage("notice", f"time is up: {left} trials have not started; continue with study_name={phase.search}")
    elif left:
        raise NfaError(f"{left} trials are left; continue with study_name={phase.search}")
