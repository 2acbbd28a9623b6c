"""timing.json: each run has the time of its own, of all its parts, and a parent that of its children beside its own."""

import itertools
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from nfa.errors import DivergedError
from nfa.registry import stopwatch, tracking
from nfa.registry.families.mlp import session
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.signals import Interrupted
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training import report
from nfa.registry.training.start import train
from nfa.registry.training.time_spent import FILE, keep_time, timed
from tests.support.analyses import undrawn
from tests.support.fault_injection import TERM, During
from tests.support.processes import run, words
from tests.support.stores import Store
from tests.support.tiny_runs import OPTIMIZERS, TINY, tiny


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stopwatch, "time", made)
    return made


# ---- the clock


def test_a_part_has_a_clock_of_its_own_and_the_whole_stands_still_meanwhile(clock: Clock) -> None:
    whole = Stopwatch()
    clock.passes(1)
    with whole.section("comparison"):
        clock.passes(2)
        with whole.part() as part:
            with part.section("training"):
                clock.passes(10)
            assert part.split() == {"other": 0, "training": 10, "total": 10}
        clock.passes(4)
    assert whole.split() == {"other": 1, "comparison": 6, "total": 7}


def test_a_part_that_fails_does_not_count_in_the_whole_either(clock: Clock) -> None:
    def fail(whole: Stopwatch) -> None:
        with whole.part():
            clock.passes(5)
            raise DivergedError("inf")

    whole = Stopwatch()
    with pytest.raises(DivergedError):
        fail(whole)
    clock.passes(1)
    assert whole.split() == {"other": 1, "total": 1}


# ---- the file of a run


def opened(parent: TrackedRun | None = None) -> TrackedRun:
    return tracking.open_run("train", "mlp", parent=parent)


def told(store: Store, run_id: str) -> dict[str, float]:
    found: dict[str, float] = store.json(run_id, FILE)
    return found


@pytest.mark.parametrize("end", [Interrupted(signal.SIGTERM), DivergedError("inf"), RuntimeError("crash")])
def test_a_continued_run_says_the_time_of_all_its_parts(end: BaseException, store: Store, clock: Clock) -> None:
    def train_and_end(run: TrackedRun) -> None:
        with run, timed(run, (spent := Stopwatch())), spent.section("training"):
            clock.passes(5)
            raise end

    first = opened()
    with pytest.raises(type(end)):
        train_and_end(first)
    assert told(store, first.run_id) == {"other": 0, "training": 5, "total": 5}
    assert not store.seconds(first.run_id)
    clock.passes(1000)  # nobody is at it
    second, spent = tracking.reopen_run(first.run_id), Stopwatch({"import": 3})
    with second, timed(second, spent):
        clock.passes(1)
        with spent.section("training"):
            clock.passes(7)
    assert told(store, first.run_id) == {"import": 3, "other": 1, "training": 12, "total": 16}
    assert store.seconds(first.run_id) == {0: 16}


def test_a_run_that_is_killed_without_a_word_counts_up_to_what_was_kept_last(store: Store, clock: Clock) -> None:
    first = opened()
    with first:
        spent = Stopwatch()
        clock.passes(5)
        keep_time(first, spent)
        clock.passes(100)
    store.change("UPDATE tags SET value = 'killed' WHERE key = 'nfa.state'")
    second = tracking.reopen_run(first.run_id)
    with second, timed(second, Stopwatch()):
        clock.passes(2)
    assert told(store, first.run_id)["total"] == 7


def test_a_parent_adds_its_children_to_its_own_time_also_where_it_was_continued(store: Store, clock: Clock) -> None:
    def train_each(parent: TrackedRun, *seconds: float, end: BaseException | None = None) -> None:
        with parent, timed(parent, (spent := Stopwatch()), family=True):
            clock.passes(1)
            for each in seconds:
                with opened(parent) as child, spent.part() as own, timed(child, own):
                    clock.passes(each)
            opened(parent)  # says nothing
            clock.passes(0.5)
            if end:
                raise end

    parent = opened()
    with pytest.raises(Interrupted):
        train_each(parent, 10, 20, end=Interrupted(signal.SIGTERM))
    assert told(store, parent.run_id) == {"other": 1.5, "children": 30, "total": 31.5}
    train_each(tracking.reopen_run(parent.run_id), 40)
    assert told(store, parent.run_id) == {"other": 3, "children": 70, "total": 73}
    assert store.seconds(parent.run_id) == {0: 73}


@pytest.mark.usefixtures("store")
def test_a_store_that_fails_does_not_hide_why_a_run_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("full")

    def diverge() -> None:
        with opened() as made, timed(made, Stopwatch()):
            raise DivergedError("inf")

    monkeypatch.setattr(tracking, "put_json", full)
    with pytest.raises(DivergedError):
        diverge()
    with pytest.raises(OSError, match="full"), opened() as made, timed(made, Stopwatch()):
        pass


# ---- whole trainings


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every look at a clock, MLflow's own included, is a second after the last one."""
    ticks = itertools.count(1_700_000_000)
    tick = lambda: float(next(ticks))  # noqa: E731
    monkeypatch.setattr(time, "perf_counter", tick)
    monkeypatch.setattr(time, "time", tick)
    for drawing in ("training_figure", "comparison_figure"):
        monkeypatch.setattr(report, drawing, lambda *_, **__: None)
    with undrawn():
        yield


def durations(store: Store) -> dict[str, float]:
    rows = store.rows("SELECT run_uuid, start_time, end_time FROM runs")
    return {run_id: (end - start) / 1000 for run_id, start, end in rows}


def assert_sums_up(store: Store, parent: str, children: Mapping[str, str]) -> None:
    """Every file adds up, the parent's to its own and its children's, and no child took longer than its run."""
    whole, parts = told(store, parent), {name: told(store, run_id) for name, run_id in children.items()}
    assert whole["children"] == pytest.approx(sum(part["total"] for part in parts.values()), abs=1e-6)
    for content in (whole, *parts.values()):
        assert content["total"] == pytest.approx(sum(content.values()) - content["total"], abs=1e-6)
    for name, run_id in children.items():
        assert 0 < parts[name]["total"] <= durations(store)[run_id], name
        assert "children" not in parts[name]
    assert whole["total"] > whole["children"]


@pytest.mark.usefixtures("ticking")
def test_each_training_of_all_optimizers_says_its_own_time_and_their_parent_the_sum(store: Store) -> None:
    train(TrainConfig(**{**TINY, "optimizer": "all", "epochs": 1, "schedule": "0-1"}), Stopwatch({"import": 2}))
    parent, *children = store.runs()
    assert_sums_up(store, parent, dict(zip(OPTIMIZERS, children, strict=True)))
    assert all(store.seconds(run_id) == {0: told(store, run_id)["total"]} for run_id in (parent, *children))
    assert told(store, parent)["import"] == 2
    assert told(store, parent)["data"] > 0


@pytest.mark.usefixtures("ticking")
def test_a_child_that_failed_counts_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.ClassifierSession, "finish", lambda *_: (_ for _ in ()).throw(DivergedError("inf")))
    with pytest.raises(Exception, match="sgd: inf"):
        train(TrainConfig(**{**TINY, "optimizer": "all", "epochs": 1, "schedule": "0"}), Stopwatch())
    parent, *children = store.runs()
    assert_sums_up(store, parent, dict(zip(OPTIMIZERS, children, strict=True)))


def test_a_resumed_training_goes_on_counting(fresh: Store) -> None:
    stop = During("nfa.registry.training.optimizers", "Optimizers.step", TERM, 40)
    assert run(fresh, tiny(), before=stop).code == 143
    (run_id,) = fresh.runs()
    before = told(fresh, run_id)
    assert run(fresh, words(resume=run_id)).code == 0
    after = told(fresh, run_id)
    assert all(after[name] >= seconds for name, seconds in before.items())
    assert after["training"] > before["training"]
