"""Time spent in the sections of a job."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType


class Stopwatch:
    """Seconds by named section; while an inner section runs, the outer one's clock stands still."""

    def __init__(self, already: Mapping[str, float] = MappingProxyType({})) -> None:
        self.seconds: dict[str, float] = dict(already)
        self._stack = ["other"]
        self._since = time.perf_counter()

    def _charge(self) -> None:
        now, name = time.perf_counter(), self._stack[-1]
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Count the time of the block for the section `name`."""
        self._charge()
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    @contextmanager
    def part(self) -> Iterator["Stopwatch"]:
        """Give a separate clock to a part of the job that is reported separately; this clock stands still meanwhile."""
        self._charge()
        try:
            yield Stopwatch()
        finally:
            self._since = time.perf_counter()

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add seconds that were spent earlier."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value

    def split(self) -> dict[str, float]:
        """Return the seconds by section up to now, and their total."""
        self._charge()
        return {
            **{name: round(value, 3) for name, value in self.seconds.items()},
            "total": round(sum(self.seconds.values()), 3),
        }

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.split().items())
