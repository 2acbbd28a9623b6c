"""Processes that run trials of a study until none is left: this one, or several others."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import optuna
import torch
from optuna.trial import TrialState

from nfa.console import stage
from nfa.errors import NfaError
from nfa.masking import mask_process
from nfa.plain_text import counted
from nfa.registry import signals
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


# ---- other processes


def employ(assignment: Assignment, number: int, begin: Callable[..., None], watch: Callable[[], None]) -> None:
    """Run `begin(assignment)` in `number` processes until they are done; `watch()` is called meanwhile.

    A killed process is replaced while trials are left, and its trial is resumed by any process. Signals are passed on,
    and the processes are waited for. Raises `NfaError` if one of them raised it.
    """
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    left = number * (1 + FAILURES)  # processes that may be started, including replacements
    with _threads_for(number):
        running: list[Any] = []
        try:
            while running or (left and answers.empty()):
                while left and len(running) < number and answers.empty():
                    left -= 1
                    running.append(_started(context, begin, assignment, answers, left))
                time.sleep(POLL)
                watch()
                ended = [process for process in running if process.exitcode is not None]
                running = [process for process in running if process.exitcode is None]
                if any(process.exitcode >= 0 for process in ended):
                    left = 0  # it has found no more trials
                for process in ended:
                    if process.exitcode < 0:
                        replaced = "it is replaced" if left else "the others continue"
                        stage("notice", f"worker {process.pid} was ended by signal {-process.exitcode}; {replaced}")
        except Interrupted:
            _end(running)
            raise
    if not answers.empty():
        _raise(answers.get())


def _started(context: Any, begin: Callable[..., None], assignment: Assignment, answers: Any, index: int) -> Any:
    process = context.Process(target=_begin, args=(begin, assignment, answers, index))
    process.start()
    return process


def _begin(begin: Callable[..., None], assignment: Assignment, answers: Any, index: int) -> None:
    """The main function of a process, on a GPU of its own if there are enough; its error is put into `answers`."""
    signals.listen()
    if torch.cuda.is_available():
        torch.cuda.set_device(index % torch.cuda.device_count())
    try:
        mask_process()
        begin(assignment)
    except Interrupted as stop:
        raise SystemExit(stop.exit_code) from None
    except NfaError as error:
        answers.put((error.exit_code, str(error)))
        raise SystemExit(error.exit_code) from None


def _raise(answer: tuple[int, str]) -> None:
    error = NfaError(answer[1])
    error.exit_code = answer[0]
    raise error


def _end(running: list[Any]) -> None:
    with shielded():
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        for process in running:
            process.join()


@contextlib.contextmanager
def _threads_for(number: int) -> Iterator[None]:
    """Let processes that are started in the block share the CPU cores."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // number)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
