"""Which steps a watch records."""

import math
import time
from collections import deque
from collections.abc import Callable, Collection
from statistics import median
from typing import Any, Protocol

from nfa import checkpoint_schedule
from nfa.console import stage
from nfa.errors import Refusal
from nfa.watching.options import as_text, whole_number

SHARE = 0.05  # the share of training time for recording
ROUNDING = 1e-6
TIMED = 5  # steps that are timed before the distance is chosen


class Pace(Protocol):
    """The rule that is asked at every step; with `keeps_ends` the last step is recorded too, whatever it is."""

    keeps_ends: bool

    def due(self, step: int) -> bool:
        """Tell whether this step is recorded."""

    def took(self, seconds: float) -> None:
        """Learn how long the last record took, in seconds."""

    def named(self) -> Collection[int]:
        """Return the steps that are recorded if they are listed; otherwise none."""


class Scheduled:
    """Record the steps of a list, or all steps."""

    keeps_ends = False

    def __init__(self, schedule: str) -> None:
        self.schedule = schedule
        self.steps = frozenset(checkpoint_schedule.parse(schedule, 0))

    def due(self, step: int) -> bool:
        return self.schedule == "all" or step in self.steps

    def took(self, seconds: float) -> None:
        """Do nothing: time does not matter."""

    def named(self) -> Collection[int]:
        return () if self.schedule == "all" else self.steps


class Every:
    """Record every n-th step."""

    keeps_ends = True

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def due(self, step: int) -> bool:
        return step % self.steps == 0

    def took(self, seconds: float) -> None:
        """Do nothing: time does not matter."""

    def named(self) -> Collection[int]:
        return ()


class Auto:
    """Record the first step and then every n-th, so that recording takes at most 5 % of the training time.

    n is 1, 2, 5, 10, 20, …. It is chosen after five timed steps, or as soon as a step takes so long that every step can
    be recorded, and it grows if records become slower. Each choice is printed in a line.
    """

    keeps_ends = True

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock, self.steps = clock, 0
        self.gaps: deque[float] = deque(maxlen=4 * TIMED)
        self.cost, self.before = 0.0, math.nan

    def due(self, step: int) -> bool:
        first = math.isnan(self.before)
        if not first:
            self.gaps.append(self.clock() - self.before)
            if not self.steps and (len(self.gaps) >= TIMED or self._needed() <= 1):
                self._decide()
        self.before = self.clock()
        return first or (self.steps > 0 and step % self.steps == 0)

    def took(self, seconds: float) -> None:
        self.cost, self.before = seconds, self.clock()
        if self.steps and self._needed() > self.steps:
            self._decide()

    def named(self) -> Collection[int]:
        return ()

    def _needed(self) -> float:
        return self.cost / (SHARE * max(median(self.gaps), 1e-9))

    def _decide(self) -> None:
        self.steps = rounded_up(self._needed())
        often = "every step" if self.steps == 1 else f"one step in {self.steps:,}"
        spent = f"recording takes {self.cost:.2g} s, a training step {median(self.gaps):.2g} s"
        stage("watch", f"every=auto records {often}: {spent}")


def rounded_up(number: float) -> int:
    """Round up to the next of 1, 2, 5, 10, 20, 50, …

    >>> [rounded_up(number) for number in (0.3, 1, 1.2, 4, 12, 80)]
    [1, 1, 2, 5, 20, 100]
    """
    size = int(10 ** math.floor(math.log10(max(number, 1))))
    return next(step * size for step in (1, 2, 5, 10) if step * size >= number - ROUNDING)


def pace(schedule: Any, every: Any) -> Pace:
    """Return the rule for `schedule` and `every`, of which at most one may be given."""
    text = as_text("schedule", schedule)
    if every == 1:
        return Scheduled(text)
    if text != "all":
        raise Refusal(f"every={every} with schedule={text}", "one of the two", "leave every out")
    if every == "auto":
        return Auto()
    if isinstance(every, str) or whole_number("every", every) < 1:
        raise Refusal(f"every={every!r}", "a whole number ≥ 1, or auto", "every='auto'")
    return Every(whole_number("every", every))
