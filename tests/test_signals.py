"""Signals become one exception, raised only where nothing is half done."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from nfa.registry import signals
from nfa.registry.signals import Interrupted, exposed, shielded


@pytest.fixture(autouse=True)
def _fresh_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(signals, "_signals", signals._Signals())
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    signals.listen()
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def send(*signums: int) -> None:
    for signum in signums:
        os.kill(os.getpid(), signum)


@pytest.mark.parametrize(("signum", "code", "name"), [(signal.SIGINT, 130, "SIGINT"), (signal.SIGTERM, 143, "SIGTERM")])
def test_signal_raises_with_the_shell_s_exit_code(signum: int, code: int, name: str) -> None:
    with pytest.raises(Interrupted, match=name) as stop:
        send(signum)
    assert stop.value.exit_code == code


class Dying:
    """Whose end Python lets no error out of."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    def __del__(self) -> None:
        self.act()


def test_a_signal_that_python_swallows_comes_again_and_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    Dying(lambda: send(signal.SIGTERM))
    with pytest.raises(Interrupted), shielded():
        pass
    assert capsys.readouterr().err == ""
    Dying(lambda: [].pop())
    assert "IndexError" in capsys.readouterr().err


def test_except_exception_does_not_eat_an_interrupt() -> None:
    def work() -> None:
        try:
            send(signal.SIGTERM)
        except Exception:
            pytest.fail("eaten")

    with pytest.raises(Interrupted):
        work()


def test_shield_holds_a_signal_back_until_its_end() -> None:
    done = []

    def work() -> None:
        with shielded():
            send(signal.SIGTERM)
            done.append("all of it")

    with pytest.raises(Interrupted):
        work()
    assert done == ["all of it"]


def test_nested_shields_hold_until_the_outermost_ends() -> None:
    done = []

    def work() -> None:
        with shielded():
            with shielded():
                send(signal.SIGTERM)
            done.append("after the inner one")

    with pytest.raises(Interrupted):
        work()
    assert done == ["after the inner one"]


def failing_shield() -> None:
    with shielded():
        send(signal.SIGTERM)
        raise ValueError("first")


def test_error_inside_a_shield_is_not_replaced_by_the_signal() -> None:
    with pytest.raises(ValueError, match="first"):
        failing_shield()


def test_signal_held_back_by_a_failed_shield_is_raised_at_the_next() -> None:
    with pytest.raises(ValueError, match="first"):
        failing_shield()
    with pytest.raises(Interrupted), shielded():
        pass


def test_only_the_first_signal_counts_while_the_work_is_saved() -> None:
    saved = []

    def work() -> None:
        try:
            send(signal.SIGINT)
        except Interrupted:
            send(signal.SIGTERM, signal.SIGTERM)
            with shielded():
                saved.append("state")
            raise

    with pytest.raises(Interrupted, match="SIGINT"):
        work()
    assert saved == ["state"]


def test_second_signal_inside_the_same_shield_changes_nothing() -> None:
    with pytest.raises(Interrupted, match="SIGINT") as stop, shielded():
        send(signal.SIGINT, signal.SIGTERM)
    assert stop.value.exit_code == 130


def test_shield_stays_quiet_while_another_error_is_handled_inside_the_saving() -> None:
    saved = []

    def save() -> None:
        try:
            raise KeyError("no such artifact")
        except KeyError:
            with shielded():
                saved.append("state")

    def work() -> None:
        try:
            send(signal.SIGTERM)
        except Interrupted:
            save()
            raise

    with pytest.raises(Interrupted):
        work()
    assert saved == ["state"]


class Callback:
    """Python prints exceptions of finalisers and goes on."""

    def __del__(self) -> None:
        send(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupt_that_python_swallows_is_raised_again_at_the_next_shield() -> None:
    callback = Callback()
    del callback
    with pytest.raises(Interrupted), shielded():
        pass


def interrupted_at(number: int, work: Callable[[], None]) -> None:
    """Run `work` with a signal at its `number`-th instruction."""
    left = number

    def trace(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal left
        frame.f_trace_opcodes = True
        left -= event == "opcode"
        if left == 0 and event == "opcode":
            send(signal.SIGTERM)
        return trace

    sys.settrace(trace)
    try:
        work()
    except Interrupted:
        pass
    finally:
        sys.settrace(None)


@pytest.mark.parametrize("number", range(1, 80))
def test_signal_at_any_instruction_of_a_shielded_change_leaves_no_half_of_it(number: int) -> None:
    books = {"left": 10, "right": 0}

    def move() -> None:
        with shielded():
            books["left"] -= 1
            books["right"] += 1

    interrupted_at(number, move)
    assert books["left"] + books["right"] == 10
    assert signals._signals.shields == 0


def test_what_is_exposed_inside_a_shield_is_interrupted_at_once_and_the_shield_holds_again_after_it() -> None:
    done = []

    def work() -> None:
        with shielded():
            try:
                with exposed():
                    send(signal.SIGTERM)
                    done.append("not reached")
            finally:
                send(signal.SIGTERM)
                done.append("after it")

    with pytest.raises(Interrupted):
        work()
    assert done == ["after it"]


def test_a_signal_held_back_before_is_let_through_where_it_is_exposed() -> None:
    done = []

    def work() -> None:
        with shielded():
            send(signal.SIGTERM)
            done.append("held back")
            with exposed():
                done.append("not reached")

    with pytest.raises(Interrupted):
        work()
    assert done == ["held back"]
