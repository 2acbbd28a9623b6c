"""Which steps are recorded: those of a list, every n-th, or so many that it costs 5 % of the time."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import nfa
from nfa.errors import Refusal
from nfa.sinks import Memory
from nfa.watching.pace import Auto, pace
from tests.support.stores import Store
from tests.support.toy_models import layers, seeded
from tests.test_watching import CLASSES, cross_entropy, in_a_run, only, plain


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def recorded(step: float, record: Any, steps: int, first: int = 0) -> tuple[list[int], float]:
    """Steps that are recorded where steps and records take so long, and the share of the time that records take."""
    clock = Clock()
    auto, found, spent = Auto(clock), [], 0.0
    for number in range(first, steps):
        if auto.due(number):
            found.append(number)
            cost = record(number) if callable(record) else record
            clock.now, spent = clock.now + cost, spent + cost
            auto.took(cost)
        clock.now += step
    return found, spent / clock.now


@pytest.mark.parametrize(
    ("step", "record", "distance"), [(1.0, 0.04, 1), (1.0, 0.5, 10), (0.1, 0.3, 100), (0.01, 1.0, 2000), (3600, 20, 1)]
)
def test_records_are_so_far_apart_that_they_take_five_percent_at_most(
    step: float, record: float, distance: int
) -> None:
    found, share = recorded(step, record, steps=5 * distance + 1)
    assert found == list(range(0, 5 * distance + 1, distance))
    assert share <= 0.05 + 2 * record / (step * 5 * distance)  # the first one is there whatever it takes


def test_where_records_come_to_take_longer_they_become_rarer_and_a_line_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, share = recorded(1.0, lambda step: 0.5 if step < 50 else 2.0, steps=400)
    assert found == [*range(0, 60, 10), *range(100, 400, 50)]
    assert share < 0.05
    said = [line.split("  watch  ")[-1].strip() for line in capsys.readouterr().out.splitlines()]
    assert said[0].endswith("every=auto records one step in 10: recording takes 0.5 s, a training step 1 s")
    assert len(said) == 2


def test_a_training_that_goes_on_records_multiples_of_the_distance() -> None:
    assert recorded(1.0, 0.5, steps=40, first=7)[0] == [7, 20, 30]


@pytest.mark.parametrize(
    ("schedule", "every", "steps"),
    [
        ("all", 1, [0, 1, 2, 3, 4, 5, 6]),
        ("0,2-4/2", 1, [0, 2, 4]),
        (3, 1, [3]),
        ([0, 5], 1, [0, 5]),
        (range(0, 7, 3), 1, [0, 3, 6]),
        ("all", 3, [0, 3, 6]),
    ],
)
def test_lists_and_distances_mean_what_they_say(schedule: Any, every: Any, steps: list[int]) -> None:
    chosen = pace(schedule, every)
    assert [step for step in range(7) if chosen.due(step)] == steps


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"every": 0}, "every=0\n  allowed: a whole number ≥ 1, or auto"),
        ({"every": "often"}, "every='often'"),
        ({"every": 2.5}, "every=2.5"),
        ({"every": "auto", "schedule": "0-20"}, "every=auto with schedule=0-20\n  allowed: one of the two"),
        ({"schedule": 2.5}, "schedule '2.5'"),
        ({"schedule": None}, "schedule=None"),
    ],
)
@in_a_run
def test_anything_else_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(Refusal, match=match):
        nfa.watch(plain()[0], cross_entropy, plain()[1:], **options)


@pytest.mark.parametrize(
    ("options", "steps"), [({"studies": "flow"}, 1), ({"directions": 2, "chance": False}, 2.1)], ids=str
)
def test_a_record_takes_no_more_operations_than_so_many_training_steps(options: dict[str, Any], steps: float) -> None:
    """Those of matrix products, of 1,024 examples, many for layers so narrow; benchmarks/watching.py times.

    Levels over rotations, which do not depend on the number of examples, are not counted.
    """
    net, x, y = seeded(layers, 24, 48, 48, 32, CLASSES), torch.randn(1024, 24), torch.randint(CLASSES, (1024,))
    with FlopCounterMode(display=False) as training:
        cross_entropy(net(x), y).mean().backward()
    with nfa.watch(net, cross_entropy, (x, y), sink=Memory(), **options) as watch:
        watch.record(0)
        with FlopCounterMode(display=False) as recording:
            watch.record(1)
    assert 0 < recording.get_total_flops() <= steps * training.get_total_flops()


def test_the_last_step_counts_unless_steps_were_named_and_is_not_measured_twice(run: Store) -> None:
    net, x, y = plain()
    for prefix, options in {"n/": {"every": 4}, "named/": {"schedule": "0"}}.items():
        with nfa.watch(net, cross_entropy, (x, y), relations="h_vs_m", prefix=prefix, **options) as watch:
            watch.record(0)
            assert watch.record_last(0) == {}
            assert bool(watch.record_last(3)) is (prefix == "n/")
    steps = [(key, step) for key, step, _ in run.metrics(only(run)) if key.endswith("0/h_vs_m")]
    assert steps == [("n/0/h_vs_m", 0), ("n/0/h_vs_m", 3), ("named/0/h_vs_m", 0)]
