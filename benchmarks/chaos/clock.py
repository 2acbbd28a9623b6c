"""The campaign's own clock: nothing is waited for beyond its end."""

import time
from collections.abc import Callable

POLL = 0.02  # seconds between looks


class OutOfTime(Exception):
    """The campaign's time is up in the midst of a round."""


class Clock:
    """Counts down from `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until the campaign ends."""
        return self._until - time.monotonic()

    def stop(self) -> None:
        """The campaign ends now."""
        self._until = time.monotonic()

    def wait(self, happened: Callable[[], object], seconds: float) -> bool:
        """Until `happened()`, or False after so many seconds; raises `OutOfTime`."""
        until = time.monotonic() + seconds
        while not happened():
            if self.left <= 0:
                raise OutOfTime
            if time.monotonic() > until:
                return False
            time.sleep(POLL)
        return True

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass; raises `OutOfTime`."""
        self.wait(lambda: False, seconds)
