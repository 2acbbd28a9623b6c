"""No call to the store holds the process for ever, and one that makes progress is waited for."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfa.registry import signals
from nfa.registry.tracking import calls
from nfa.registry.tracking.calls import Unanswered, beginning, is_hanging, limited


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    """What a hanging call waits for; set at the end."""
    released = threading.Event()
    yield released
    released.set()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "POLL", 0.001)
    monkeypatch.setattr(calls, "_limits", calls._Limits())
    monkeypatch.setattr(signals, "_signals", signals._Signals())


def silent_for(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is so much later than the one before."""
    now = time.monotonic()

    def later() -> float:
        nonlocal now
        now += seconds
        return now

    monkeypatch.setattr(calls.time, "monotonic", later)


def asked_to_end() -> None:
    signals._signals.pending, signals._signals.since = signal.SIGINT, calls.time.monotonic()


def test_answers_and_errors_are_those_of_the_call() -> None:
    assert limited(sorted, [3, 1], reverse=True) == [3, 1]
    with pytest.raises(ZeroDivisionError):
        limited(divmod, 1, 0)
    assert not is_hanging()


def test_a_call_within_a_call_is_part_of_it() -> None:
    def outer() -> bool:
        return limited(threading.current_thread) is threading.current_thread()

    assert limited(outer)
    assert limited(threading.current_thread) is not threading.current_thread()


def test_a_call_that_hangs_is_given_up(hung: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    silent_for(70, monkeypatch)
    with pytest.raises(Unanswered, match="did not answer for 300 s"):
        limited(hung.wait)
    assert is_hanging()
    assert limited(len, "after it, the store is asked again") > 0


def test_the_limit_is_shorter_before_work_has_begun(hung: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    silent_for(25, monkeypatch)
    with beginning(), pytest.raises(Unanswered, match="did not answer for 60 s"):
        limited(hung.wait)


def test_after_a_signal_a_silent_store_holds_for_five_seconds_and_is_not_asked_again(
    hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent_for(2, monkeypatch)
    asked_to_end()
    with pytest.raises(Unanswered, match="did not answer for 5 s"):
        limited(hung.wait)
    with pytest.raises(Unanswered, match="given up"):
        limited(len, "never called")


def test_after_a_signal_a_store_that_answers_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_to_end()
    silent_for(2, monkeypatch)
    assert [limited(len, "abc") for _ in range(20)] == [3] * 20


def test_a_call_that_moves_bytes_is_waited_for(
    hung: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    monkeypatch.setattr(calls.time, "monotonic", lambda: 1000 + read / (1 << 13))  # two seconds a part
    asked_to_end()
    file = tmp_path / "upload"
    file.write_bytes(bytes(1 << 20))

    def upload() -> None:
        nonlocal read
        with file.open("rb", buffering=0) as stream:
            while part := stream.read(1 << 14):
                read += len(part)
                hung.wait(0.004)

    limited(upload)
    assert read == 1 << 20


def test_a_call_that_has_stopped_to_move_bytes_is_given_up(
    hung: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_to_end()
    silent_for(0.5, monkeypatch)
    file = tmp_path / "upload"
    file.write_bytes(bytes(1 << 20))
    with pytest.raises(Unanswered):
        limited(lambda: (file.read_bytes(), hung.wait()))
