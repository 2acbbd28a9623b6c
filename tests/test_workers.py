"""Tasks in processes of their own: each is done once, whatever ends a process, and nothing is left behind."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfa import masking
from nfa.errors import NfaError, Refusal
from nfa.registry import signals, workers
from nfa.registry.signals import Interrupted
from nfa.registry.workers import TRIES, employ


@pytest.fixture(autouse=True)
def _usual_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(signals, "_signals", signals._Signals())
    yield
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


def do(task: tuple[str, Path]) -> None:
    """Note the process, and end as the task says."""
    kind, folder = task
    with (folder / kind).open("a") as file:
        file.write(f"{os.getpid()}\n")
    if kind == "refused":
        raise Refusal("this task", "another one", "take it")
    if kind == "broken":
        raise RuntimeError("a bug")
    if kind == "killed always" or (kind == "killed once" and len(did(folder, kind)) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "ends the leader":
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()


def did(folder: Path, kind: str) -> list[int]:
    """Ids of the processes that began a task."""
    return [int(line) for line in (folder / kind).read_text().splitlines()]


def test_one_process_does_several_tasks_and_an_error_does_not_stop_the_others(tmp_path: Path) -> None:
    ended: list[tuple[int, str]] = []
    tasks = [(kind, tmp_path) for kind in ("first", "refused", "last")]
    errors = employ(do, tasks, 1, ended=lambda place, error: ended.append((place, str(error or ""))))
    assert [error and error.exit_code for error in errors] == [None, 2, None]
    assert str(errors[1]).startswith("cannot use this task")
    assert [place for place, _ in ended] == [0, 1, 2]
    (process,) = {pid for kind, _ in tasks for pid in did(tmp_path, kind)}
    assert process != os.getpid()


def test_the_task_of_a_killed_process_is_taken_up_and_a_bug_is_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    errors = employ(do, [("killed once", tmp_path), ("broken", tmp_path)], 2)
    first, second = did(tmp_path, "killed once")
    assert first != second
    assert errors[0] is None
    assert str(errors[1]) == f"worker {did(tmp_path, 'broken')[0]} was ended with exit code 1"
    assert f"worker {first} was ended by signal 9; it is replaced" in capfd.readouterr().out


@pytest.mark.slow
def test_a_task_that_kills_every_process_is_given_up(tmp_path: Path) -> None:
    (error,) = employ(do, [("killed always", tmp_path)], 1)
    assert isinstance(error, NfaError)
    assert len(did(tmp_path, "killed always")) == TRIES


def test_a_signal_ends_all_processes(tmp_path: Path) -> None:
    signals.listen()
    with pytest.raises(Interrupted):
        employ(do, [("ends the leader", tmp_path)], 1)
    assert multiprocessing.active_children() == []


def test_a_process_prints_no_password(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(masking, "_typed", set())
    monkeypatch.setattr("sys.argv", ["tune", "--storage", "postgresql://me:geheim@host/studies"])
    ours, theirs = multiprocessing.Pipe()
    ours.send(("geheim, or geheim",))
    ours.send(None)
    workers._serve(print, theirs, 0)
    assert capsys.readouterr().out == "***, or ***\n"
    assert ours.recv() is None
