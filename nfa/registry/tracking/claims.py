"""A run is worked on by one process at a time, whatever host, container or server these run on.

A param of a run is written once and never changed: of all processes that write `nfa.claim.<n>` at the same moment, one
has written it. The next number may be claimed where the process of the newest claim has said that it is done
(`nfa.released`), is seen to be no more, or has given no sign of life while it was watched. No clocks are compared.
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
RELEASED = "nfa.released"  # number of the claim whose process is done
BEAT = "nfa.heartbeat"
INTERVAL = 10.0  # seconds between beats
SILENCE = 60.0  # seconds without a beat, while it is watched, after which a process out of sight counts as gone
GAP = 3 * INTERVAL  # between two looks; after a longer one watching begins anew
POLL = 1.0
_NUMBERED = re.compile(re.escape(PREFIX) + r"([0-9]{1,9})")


class Taken(Refusal):
    """Another process is at work on the run."""

    def __init__(self, run_id: str, why: str) -> None:
        self.run_id = run_id
        super().__init__(f"run {run_id} ({why})", "a run that nobody is at work on", "wait for it, or stop its process")


class Lost(NfaError):
    """While this process could not be heard of, another one has taken over its run."""


@dataclass(frozen=True)
class Claim:
    """The `number`-th claim on a run, signed by its process."""

    run_id: str
    number: int
    text: str

    @classmethod
    def after(cls, run: Run) -> "Claim":
        """The one that this process may write next, as the run was when it was read."""
        known = _newest(run)
        return cls(run.info.run_id, known.number + 1 if known else 0, sign(claim=uuid.uuid4().hex))

    def write(self) -> None:
        """Make the run this process's own; `Taken` where another one has claimed it since it was read."""
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
            raise Taken(self.run_id, f"just taken by {process_of(written or '') or 'another process'}")

    @property
    def released(self) -> dict[str, str]:
        """The tag that says that its process is done."""
        return {RELEASED: str(self.number)}

    def holds(self) -> bool:
        """Whether the run is still this process's own."""
        run = client().get_run(self.run_id)
        return _newest(run) == self and run.data.tags.get(RELEASED) != str(self.number)


def _newest(run: Run) -> Claim | None:
    """The last claim that was written on a run; a run of version 0.6 has none."""
    matches = [match for match in map(_NUMBERED.fullmatch, run.data.params) if match]
    if not matches:
        return None
    last = max(matches, key=lambda match: int(match[1]))
    return Claim(run.info.run_id, int(last[1]), run.data.params[last[0]])


def is_claimed(run: Run) -> bool:
    """Whether a process has ever claimed a run."""
    return _newest(run) is not None


def released(run: Run) -> dict[str, str]:
    """The tag that says that the process of a run's newest claim is done; none where there is no claim."""
    known = _newest(run)
    return known.released if known else {}


def holder(run: Run) -> str | None:
    """What the process has signed that may be at work on a run; None where nobody can be."""
    known, tags = _newest(run), run.data.tags
    if known:
        return None if tags.get(RELEASED) == str(known.number) else known.text
    return tags.get(BEAT, "") if tags.get("nfa.state") == "running" else None


def is_running(run: Run) -> bool:
    """Whether a process may be at work on a run: it exists, or cannot be seen from here."""
    text = holder(run)
    return text is not None and life_of(text) is not Life.GONE


class Silence:
    """For how long a run has given no sign of life while this process watched."""

    def __init__(self, run: Run) -> None:
        self._text = signs(run)
        self._since = self._looked = time.monotonic()

    def seconds(self, run: Run) -> float:
        """Up to now, with the run as it is now; 0 where it has changed, or was not looked at for too long."""
        now, text = time.monotonic(), signs(run)
        if text != self._text or now - self._looked > GAP:
            self._text, self._since = text, now
        self._looked = now
        return now - self._since


def signs(run: Run) -> tuple[str, Claim | None]:
    """What changes while a process is at work on a run."""
    return run.data.tags.get(BEAT, ""), _newest(run)


def wait_until_free(run: Run) -> None:
    """Return once nobody is at work on a run; `Taken` where somebody is.

    A process that cannot be seen from here is watched for the silence that is allowed, and any sign of life wins.
    """
    text = holder(run)
    life = Life.GONE if text is None else life_of(text)
    if life is Life.ALIVE:
        raise Taken(run.info.run_id, f"still running: {process_of(text or '')}")
    if life is Life.UNSEEN:
        _watch(run, str(process_of(text or "") or "a process that left no readable sign"))


def _watch(run: Run, process: str) -> None:
    run_id, silence = run.info.run_id, Silence(run)
    stage("waiting", f"{process}, out of sight from here, had run {run_id[:12]}: watched for {SILENCE:.0f} s")
    quiet = 0.0
    while quiet < SILENCE:
        time.sleep(min(POLL, SILENCE - quiet))
        now = client().get_run(run_id)
        if signs(now) != signs(run):
            raise Taken(run_id, f"still running: {process} gave a sign of life")
        quiet = silence.seconds(now)
