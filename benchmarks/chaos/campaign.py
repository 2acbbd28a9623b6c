"""Scenarios, played round by round on all cores for as long as there is time."""

import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from benchmarks.chaos.clock import OutOfTime
from benchmarks.chaos.judgement import Play, Undisturbed, judge
from benchmarks.chaos.rounds import Bench, Round
from benchmarks.chaos.seen import Seen

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
        seen, reason = self.seen, self.scenario.missing()
        rounds = f"{self.played}" if self.played == self.scenario.rounds else f"{self.played} of {self.scenario.rounds}"
        return {
            "done": self.scenario.done,
            "rounds": f"0: {reason}" if reason else rounds,
            "codes": ", ".join(f"{code} × {count}" for code, count in sorted(seen.codes.items())),
            "duplicates": len(seen.duplicates),
            "litter": len(seen.litter),
            "leaks": len(seen.leaks),
            "equal": f"{seen.equal} of {seen.trained}" if seen.trained else "",
            "seconds": f"{max(seen.seconds):.1f}" if seen.seconds else "",
            "faults": self._faults(),
        }

    def _faults(self) -> list[str]:
        kinds = {"duplicate": self.seen.duplicates, "litter": self.seen.litter, "leak": self.seen.leaks}
        others = [f"{kind}: {text}" for kind, texts in kinds.items() for text in texts]
        counts = Counter([*self.seen.faults, *others])
        return [text if count == 1 else f"{text} ({count} times)" for text, count in counts.items()]


class Campaign:
    """All scenarios. First one round of each, then a second …, until all are played or the time is up."""

    def __init__(self, bench: Bench, scenarios: Sequence[Scenario]) -> None:
        self.bench, self.clock = bench, bench.clock
        self.rows = [Row(scenario) for scenario in scenarios]
        self._undisturbed = Undisturbed(bench)
        self._lock = Lock()

    def play(self) -> None:
        """Until the end; an interrupt ends all processes first."""
        possible = [row for row in self.rows if not row.scenario.missing()]
        most = max((row.scenario.rounds for row in possible), default=0)
        jobs = [(row, number) for number in range(most) for row in possible if number < row.scenario.rounds]
        with ThreadPoolExecutor(LANES) as lanes:
            try:
                for answer in [lanes.submit(self._round, *job) for job in jobs]:
                    answer.result()
            finally:
                self.clock.stop()

    def _round(self, row: Row, number: int) -> None:
        if self.clock.left < max(row.longest, row.scenario.seconds):
            return
        start = time.monotonic()
        here = None
        try:
            clean = self._undisturbed.of(row.scenario.clean)
            here = Round(self.bench, f"{row.scenario.name}-{number}", clean)
            row.scenario.play(here, number)
            judge(here, once=row.scenario.once)
        except OutOfTime:
            row.cut += 1
            return
        except Exception:
            traceback.print_exc()
            if here:
                here.fault(f"the round itself failed: {traceback.format_exc(limit=1).splitlines()[-1]}")
        finally:
            if here:
                here.close()
        self._keep(row, here, time.monotonic() - start)

    def _keep(self, row: Row, here: Round | None, seconds: float) -> None:
        with self._lock:
            row.played += 1
            row.longest = max(row.longest, seconds)
            if here is None:
                row.seen.faults.append("it fails even undisturbed")
                return
            row.seen.add(here.seen)
            said = "good" if here.seen.good else "; ".join(here.seen.faults) or "see the record"
            print(f"{here.folder.name:>24}  {seconds:5.1f} s  {said}", file=sys.stderr, flush=True)
            if here.seen.good:
                shutil.rmtree(here.folder)
