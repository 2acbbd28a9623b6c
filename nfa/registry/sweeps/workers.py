"""Run trials of a study until none is left, in this process or in another one."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from nfa.console import stage
from nfa.errors import NfaError
from nfa.plain_text import counted
from nfa.registry.signals import Interrupted, exposed, shielded
from nfa.registry.sweeps import trial_queue
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.storage import AllTaken

POLL = 0.5  # seconds between two checks of other processes
FAILURES = 5  # consecutive failures at the start of a study after which it is given up
Objective = Callable[[optuna.Trial], list[float]]


@dataclass(frozen=True)
class Assignment:
    """What a further process needs to run trials; everything else is in the study and in its run."""

    config: TuneConfig
    study_name: str
    parent_id: str
    until: float  # time.time() after which no trial starts; inf = no limit
    leader: int  # id of the leading process; without it, no trial starts


def work(study: optuna.Study, objective: Objective, assignment: Assignment, said: Callable[[int], None]) -> None:
    """Run trials until all have ended, in any process; `said(slot)` is called after each trial of this process.

    Raises `NfaError` if the first trials have all failed. A trial that is interrupted by a signal is enqueued again.
    """
    waiting = False
    unspoken: dict[int, float] = {}
    while time.time() < assignment.until and _led(assignment):
        trial_queue.put_back_lost(study, unspoken)
        try:
            said(_take(study, objective))
        except AllTaken:
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if not running:
                return
            if not waiting:
                stage("waiting", f"for {counted(len(running), 'trial')} in other processes")
            waiting = True
            time.sleep(POLL)
            continue
        check_failures(study)


def _led(assignment: Assignment) -> bool:
    return assignment.leader in (os.getpid(), os.getppid())


def _take(study: optuna.Study, objective: Objective) -> int:
    """Run one trial and return its slot; raise `AllTaken` if none is waiting.

    Signals are delivered only inside the trial itself: in Optuna's code they could leave a thread behind, or a trial
    without an owner.
    """
    taken: list[optuna.Trial] = []

    def remembered(trial: optuna.Trial) -> list[float]:
        taken.append(trial)
        with exposed():
            return objective(trial)

    try:
        with shielded():
            study.optimize(remembered, n_trials=1, catch=(Exception,))
    except Interrupted:
        with shielded():
            for trial in taken:
                trial_queue.put_back(study, study.get_trials(deepcopy=False)[trial.number])
        raise
    return trial_queue.slot_of(taken[0])


def check_failures(study: optuna.Study) -> None:
    """Raise `NfaError` with the first error if all trials so far have failed."""
    trials = trial_queue.latest(study.get_trials(deepcopy=False))
    counts = trial_queue.counts(trials)
    failed = counts.get("failed", 0)
    good = counts.get("finished", 0) + counts.get("pruned", 0)
    if not good and failed >= min(FAILURES, len(trials)):
        which = "all" if failed == len(trials) else "the first"
        raise NfaError(f"{which} {failed} trials failed; the first error: {trial_queue.errors(trials)[0]}")
