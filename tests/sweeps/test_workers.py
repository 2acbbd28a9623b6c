"""A worker takes trials until none is left, and a signal leaves nothing half done, wherever it arrives."""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import _heartbeat
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

from nfa.errors import NfaError
from nfa.registry import signals
from nfa.registry.signals import Interrupted
from nfa.registry.sweeps import trial_queue, workers
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.samplers import SeededBySlot, suggest
from nfa.registry.sweeps.storage import open_storage

CONFIG = TuneConfig(space="lr=log:1e-3:1", n_trials=4, sampler="random")
HERE = workers.Assignment(CONFIG, "s", "", math.inf, os.getpid())


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    storage = open_storage(make_url(f"sqlite:///{tmp_path}/optuna.db"))
    study = optuna.create_study(storage=storage, study_name="s", sampler=SeededBySlot("random", 1))
    trial_queue.fill(study, CONFIG)
    return study


@pytest.fixture(autouse=True)
def _fresh_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(signals, "_signals", signals._Signals())
    signals.listen()
    yield
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


def value(trial: optuna.Trial) -> list[float]:
    return [float(suggest(trial, CONFIG.axes)["lr"])]


def then(function: Callable[..., Any], act: Callable[[], None], *, number: int = 2) -> Callable[..., Any]:
    """The function, with `act` before its `number`-th call."""
    calls = iter(range(1, 10**6))

    def wrapped(*args: Any, **named: Any) -> Any:
        if next(calls) == number:
            act()
        return function(*args, **named)

    return wrapped


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_worker_takes_all_trials_and_says_each_once(study: optuna.Study) -> None:
    said: list[int] = []
    workers.work(study, value, HERE, said.append)
    assert said == [0, 1, 2, 3]
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}


PLACES = {
    "asking": (SeededBySlot, "before_trial"),
    "taking": (trial_queue, "slot_of"),
    "first sign of life": (_heartbeat.HeartbeatThread, "start"),
    "last sign of life": (_heartbeat.HeartbeatThread, "join"),
    "lost ones looked for": (trial_queue, "put_back_lost"),
    "in the trial": (None, ""),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_signal_anywhere_leaves_every_trial_ended_or_waiting_and_no_thread(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    owner, name = PLACES[place]
    objective = value
    if owner is None:
        objective = then(value, terminate)
    else:
        monkeypatch.setattr(owner, name, then(getattr(owner, name), terminate))
    with pytest.raises(Interrupted):
        workers.work(study, objective, HERE, lambda _: None)
    monkeypatch.undo()
    states = {slot: trial.state for slot, trial in trial_queue.latest(study.trials).items()}
    assert set(states) == {0, 1, 2, 3}
    assert set(states.values()) <= {TrialState.COMPLETE, TrialState.WAITING}
    assert not [thread for thread in threading.enumerate() if "_record_heartbeat" in thread.name]
    signals._signals.pending = None
    workers.work(study, value, HERE, lambda _: None)
    assert {trial.state for trial in trial_queue.latest(study.trials).values()} == {TrialState.COMPLETE}


def test_no_trial_begins_after_its_time_or_without_the_process_that_leads(study: optuna.Study) -> None:
    for assignment in (
        workers.Assignment(CONFIG, "s", "", 0.0, os.getpid()),
        workers.Assignment(CONFIG, "s", "", math.inf, 1 if os.getppid() != 1 else 2),
    ):
        workers.work(study, value, assignment, lambda _: None)
    assert {trial.state for trial in study.trials} == {TrialState.WAITING}


def test_a_study_is_given_up_where_the_first_trials_all_fail_and_only_then(study: optuna.Study) -> None:
    def fails(trial: optuna.Trial) -> list[float]:
        if trial_queue.slot_of(trial) == 0:
            return value(trial)
        trial.set_user_attr(trial_queue.ERROR, f"fault {trial_queue.slot_of(trial)}")
        raise RuntimeError

    workers.work(study, fails, HERE, lambda _: None)
    assert trial_queue.counts(trial_queue.latest(study.trials)) == {"finished": 1, "failed": 3}


def test_the_first_error_is_told(study: optuna.Study) -> None:
    def fails(trial: optuna.Trial) -> list[float]:
        trial.set_user_attr(trial_queue.ERROR, f"fault {trial_queue.slot_of(trial)}")
        raise RuntimeError

    with pytest.raises(NfaError, match="all 4 trials failed; the first error: fault 0"):
        workers.work(study, fails, HERE, lambda _: None)
