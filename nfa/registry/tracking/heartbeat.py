"""Heartbeats of this process on a run that it owns."""

import threading
import time
from collections.abc import Callable

from nfa.registry.tracking.claims import BEAT, INTERVAL, SILENCE, Claim, Lost
from nfa.registry.tracking.processes import sign
from nfa.registry.tracking.store import StoreError, client


class Heartbeat:
    """Writes heartbeats from a thread until stopped, so that long computations count as alive.

    `also` is called between two heartbeats.
    """

    def __init__(self, claim: Claim, also: Callable[[], object] = lambda: None) -> None:
        self.claim, self._also = claim, also
        self._beats = 0
        self._heard = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, daemon=True)

    def start(self) -> None:
        """Write a heartbeat now and regularly from now on."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """Stop the heartbeats."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def beat(self) -> None:
        """Write a heartbeat into the run's tag; no two are the same."""
        self._beats += 1
        client().set_tag(self.claim.run_id, BEAT, sign(beat=self._beats))
        self._heard = time.monotonic()

    def check(self) -> None:
        """Raise `Lost` if another process has taken over the run while this one could not reach the store."""
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
                return  # the next write of this process raises it
            except StoreError:
                continue  # one missed heartbeat must not end a training; a broken store fails the next logging call
