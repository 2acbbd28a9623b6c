"""Scenarios, played round by round on all cores for as long as there is time."""

import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from benchmarks.chaos.clock import OutOfTime
from benchmarks.chaos.judgement import Play, judge, undisturbed
from benchmarks.chaos.rounds import Bench, Round
from benchmarks.chaos.seen import Clean, Seen

TOLD = 8  # faults of a scenario and kind that are written out
LANES = 2  # rounds at a time; each has one process at work, or two


@dataclass(frozen=True)
class Scenario:
    """Something that is done to the product, and how often."""

    name: str
    done: str  # in words
    play: Callable[[Round, int], None]  # the number of the round says which variant
    clean: Play  # the same commands, undisturbed
    rounds: int
    seconds: float  # of a round, on two cores that do nothing else
    once: bool = False  # whether a run may be there only once
    missing: Callable[[], str] = str  # why it cannot be done here; empty where it can
    typed_in: str = "work"  # name of the folder where commands are typed


@dataclass
class Row:
    """What the rounds of a scenario have shown, and what was left out."""

    scenario: Scenario
    played: int = 0
    cut: int = 0  # rounds that the clock has ended
    longest: float = 0.0  # seconds of a round
    seen: Seen = field(default_factory=Seen)

    def record(self) -> dict[str, Any]:
        """As it is stored."""
        seen = self.seen
        return {
            "done": self.scenario.done,
            "rounds": self._rounds(),
            "codes": ", ".join(f"{code} × {count}" for code, count in sorted(seen.codes.items())),
            "duplicates": len(seen.duplicates),
            "litter": len(seen.litter),
            "leaks": len(seen.leaks),
            "equal": f"{seen.equal} of {seen.trained}" if seen.trained else "",
            "seconds": f"{max(seen.seconds):.1f}" if seen.seconds else "",
            "faults": self._faults(),
        }

    def _rounds(self) -> str:
        if reason := self.scenario.missing():
            return f"0: {reason}"
        if self.played == self.scenario.rounds:
            return str(self.played)
        cut = f", {self.cut} cut off by the clock" if self.cut else ""
        return f"{self.played} of {self.scenario.rounds}{cut}"

    def _faults(self) -> list[str]:
        seen = self.seen
        kinds = {"duplicates": seen.duplicates, "litter": seen.litter, "leaks": seen.leaks}
        return [*_told(seen.faults), *(f"{kind}: {text}" for kind, texts in kinds.items() for text in _told(texts))]


def _told(texts: Sequence[str]) -> list[str]:
    """Each once, and not too many."""
    told = [text if count == 1 else f"{text} ({count} times)" for text, count in Counter(texts).items()]
    return told if len(told) <= TOLD else [*told[:TOLD], f"and {len(told) - TOLD} others"]


class Campaign:
    """All scenarios. First one round of each, then a second …, until all are played or the time is up."""

    def __init__(self, bench: Bench, scenarios: Sequence[Scenario]) -> None:
        self.bench, self.clock = bench, bench.clock
        self.rows = [Row(scenario) for scenario in scenarios]
        self._clean: dict[Play, Future[Clean]] = {}
        self._lock = Lock()

    def play(self) -> None:
        """Until the end; an interrupt ends all processes first."""
        possible = [row for row in self.rows if not row.scenario.missing()]
        most = max((row.scenario.rounds for row in possible), default=0)
        jobs = [(row, number) for number in range(most) for row in possible if number < row.scenario.rounds]
        with ThreadPoolExecutor(LANES) as lanes:
            try:
                for play in dict.fromkeys(row.scenario.clean for row in possible):
                    self._clean[play] = lanes.submit(undisturbed, self.bench, play)
                for answer in [lanes.submit(self._round, *job) for job in jobs]:
                    answer.result()
            finally:
                self.clock.stop()

    def _round(self, row: Row, number: int) -> None:
        """Play one, if there is time."""
        if self.clock.left < max(row.longest, row.scenario.seconds):
            return
        start = time.monotonic()
        name = f"{row.scenario.name} {number}"
        try:
            here = Round(self.bench, name, self._clean[row.scenario.clean].result(), typed_in=row.scenario.typed_in)
            self._judged(here, row, number)
        except OutOfTime:
            row.cut += 1
        except Exception:
            self._add(row, Seen(faults=[f"round {number} cannot be played: {traceback.format_exc()}"]))
        row.longest = max(row.longest, time.monotonic() - start)

    def _judged(self, here: Round, row: Row, number: int) -> None:
        try:
            row.scenario.play(here, number)
            judge(here, once=row.scenario.once)
            self._add(row, here.seen)
        except OutOfTime:
            row.seen.faults += here.seen.faults  # those that were there before the time was up
            raise
        finally:
            here.close()
        if here.seen.good:
            shutil.rmtree(here.folder)

    def _add(self, row: Row, seen: Seen) -> None:
        with self._lock:
            row.played += 1
            row.seen.add(seen)
            print(f"{row.scenario.name:>26}  {seen.summary}", file=sys.stderr, flush=True)
