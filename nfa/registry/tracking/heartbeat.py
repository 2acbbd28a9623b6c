"""Signs of life of this process on a run that is its own."""

import threading
import time
from collections.abc import Callable

from nfa.registry.tracking.claims import BEAT, INTERVAL, SILENCE, Claim, Lost
from nfa.registry.tracking.processes import sign
from nfa.registry.tracking.store import StoreError, client


class Heartbeat:
    """Beats in a thread of its own until stopped, so that long analyses count as alive.

    `also` is called between two beats.
    """

    def __init__(self, claim: Claim, also: Callable[[], object] = lambda: None) -> None:
        self.claim, self._also = claim, also
        self._beats = 0
        self._heard = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, daemon=True)

    def start(self) -> None:
        """Beat once, and from now on."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def beat(self) -> None:
        """Write the sign of life of this process into the run's tag: never the same twice."""
        self._beats += 1
        client().set_tag(self.claim.run_id, BEAT, sign(beat=self._beats))
        self._heard = time.monotonic()

    def check(self) -> None:
        """`Lost` where the run has been taken over while this process could not be heard of for long."""
        if time.monotonic() - self._heard > SILENCE / 2 and not self.claim.holds():
            raise Lost(
                f"run {self.claim.run_id} has been taken over by another process while this one could not reach the "
                "store; nothing more is written to it from here"
            )

    def _beat_on(self) -> None:
        while not self._stopped.wait(INTERVAL):
            try:
                self.check()
                self.beat()
                self._also()
            except Lost:
                return  # the next thing that this process writes says so
            except StoreError:
                continue  # one missed beat is not worth a training; a broken store fails the next logging call
