"""Claims on runs: one process works on a run at a time, across hosts, containers and servers.

MLflow's params are written once and never changed. So if several processes write the param `nfa.claim.<n>` of a run at
the same time, exactly one succeeds and owns the run. The next number may be claimed if the owner has released the run
(tag `nfa.released`), no longer exists, or has shown no sign of life while it was watched. No clocks are compared.
"""

import re
import time
import uuid
from dataclasses import dataclass

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from nfa.console import stage
from nfa.errors import NfaError, Refusal
from nfa.registry.tracking.processes import Life, life_of, process_of, sign
from nfa.registry.tracking.store import client

PREFIX = "nfa.claim."
RELEASED = "nfa.released"  # number of the claim whose process has finished
BEAT = "nfa.heartbeat"
INTERVAL = 10.0  # seconds between heartbeats
SILENCE = 60.0  # seconds without a heartbeat after which an invisible process counts as gone
GAP = 3 * INTERVAL  # between two checks; after a longer pause, watching starts over
POLL = 1.0
_NUMBERED = re.compile(re.escape(PREFIX) + r"([0-9]{1,9})")


class Taken(Refusal):
    """Another process is working on the run."""

    def __init__(self, run_id: str, why: str) -> None:
        self.run_id = run_id
        allowed, remedy = "a run that no other process is working on", "wait for it to end, or stop its process"
        super().__init__(f"run {run_id} ({why})", allowed, remedy)


class Lost(NfaError):
    """Another process has taken over the run while this one could not reach the store."""


@dataclass(frozen=True)
class Claim:
    """The `number`-th claim on a run, signed by its process."""

    run_id: str
    number: int
    text: str

    @classmethod
    def after(cls, run: Run) -> "Claim":
        """Return the claim that this process may write next, given the run as it was read."""
        known = _newest(run)
        return cls(run.info.run_id, known.number + 1 if known else 0, sign(claim=uuid.uuid4().hex))

    def write(self) -> None:
        """Claim the run for this process; raise `Taken` if another one has claimed it since it was read."""
        key = f"{PREFIX}{self.number}"
        trouble: MlflowException | None = None
        try:
            client().log_param(self.run_id, key, self.text)
        except MlflowException as error:
            trouble = error
        written = client().get_run(self.run_id).data.params.get(key)
        if written is None and trouble:
            raise trouble
        if written != self.text:
            raise Taken(self.run_id, f"just claimed by {process_of(written or '') or 'another process'}")

    @property
    def released(self) -> dict[str, str]:
        """Return the tag that releases this claim."""
        return {RELEASED: str(self.number)}

    def holds(self) -> bool:
        """Return whether this process still owns the run."""
        run = client().get_run(self.run_id)
        return _newest(run) == self and run.data.tags.get(RELEASED) != str(self.number)


def _newest(run: Run) -> Claim | None:
    """Return the newest claim on a run; None for a run of version 0.6."""
    matches = [match for match in map(_NUMBERED.fullmatch, run.data.params) if match]
    if not matches:
        return None
    last = max(matches, key=lambda match: int(match[1]))
    return Claim(run.info.run_id, int(last[1]), run.data.params[last[0]])


def is_claimed(run: Run) -> bool:
    """Return whether a process has ever claimed a run."""
    return _newest(run) is not None


def released(run: Run) -> dict[str, str]:
    """Return the tag that releases a run's newest claim; empty if there is no claim."""
    known = _newest(run)
    return known.released if known else {}


def holder(run: Run) -> str | None:
    """Return the signature of the process that may be working on a run, or None."""
    known, tags = _newest(run), run.data.tags
    if known:
        return None if tags.get(RELEASED) == str(known.number) else known.text
    return tags.get(BEAT, "") if tags.get("nfa.state") == "running" else None


def is_running(run: Run) -> bool:
    """Return whether a process may be working on a run: it exists, or is not visible from here."""
    text = holder(run)
    return text is not None and life_of(text) is not Life.GONE


class Silence:
    """Measures how long a run has shown no sign of life while this process watched."""

    def __init__(self, run: Run) -> None:
        self._text = signs(run)
        self._since = self._looked = time.monotonic()

    def seconds(self, run: Run) -> float:
        """Return the seconds up to now; 0 if the run has changed, or was not checked for too long."""
        now, text = time.monotonic(), signs(run)
        if text != self._text or now - self._looked > GAP:
            self._text, self._since = text, now
        self._looked = now
        return now - self._since


def signs(run: Run) -> tuple[str, Claim | None]:
    """Return the tags and the claim that change while a process is working on a run."""
    return run.data.tags.get(BEAT, ""), _newest(run)


def wait_until_free(run: Run) -> None:
    """Return once no process is working on a run; raise `Taken` if one is.

    A process that is not visible from here (on another host, say) is watched for `SILENCE` seconds.
    """
    text = holder(run)
    life = Life.GONE if text is None else life_of(text)
    if life is Life.ALIVE:
        raise Taken(run.info.run_id, f"still running: {process_of(text or '')}")
    if life is Life.UNSEEN:
        _watch(run, str(process_of(text or "") or "a process with an unreadable signature"))


def _watch(run: Run, process: str) -> None:
    run_id, silence = run.info.run_id, Silence(run)
    unseen = f"{process}, which is not visible from here, still works on run {run_id[:12]}"
    stage("waiting", f"for {SILENCE:.0f} s, to see whether {unseen}")
    quiet = 0.0
    while quiet < SILENCE:
        time.sleep(min(POLL, SILENCE - quiet))
        now = client().get_run(run_id)
        if signs(now) != signs(run):
            raise Taken(run_id, f"still running: {process} has shown a sign of life")
        quiet = silence.seconds(now)
