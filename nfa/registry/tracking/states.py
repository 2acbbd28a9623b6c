"""The training state for resuming; a state that the server did not accept is kept on this machine."""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nfa import content, unfinished
from nfa.console import stage
from nfa.errors import reading
from nfa.registry.folders import cache_folder
from nfa.registry.signals import shielded
from nfa.registry.tracking import artifacts
from nfa.registry.tracking.places import local_folder
from nfa.registry.tracking.runs import TrackedRun
from nfa.registry.tracking.store import client

STATE = "state/latest.pt"


def save_state(run: TrackedRun, state: Mapping[str, Any]) -> None:
    """Replace the run's training state. A state that the server does not accept is kept here for the next resume."""
    run.check_held()
    write = partial(content.write_state, state={**state, "claim": run.claim.number})
    if local_folder(run.info):
        artifacts.put(run.info, STATE, write)
        return
    with shielded():
        kept = _place(run.run_id)
        unfinished.write(kept, write)
        client().log_artifact(run.run_id, str(kept), str(Path(STATE).parent))
        _forget(run.run_id)


def unsent_state(run_id: str) -> Path | None:
    """Return the file of a training state that the server has not accepted, or None."""
    kept = _place(run_id)
    return kept if kept.exists() else None


def load_state(run: TrackedRun) -> dict[str, Any] | None:
    """Return the run's training state; None if it ended before its first checkpoint."""
    if state := unsent(run.run_id):
        if state["claim"] == run.claim.number - 1:
            stage("state", f"from {_place(run.run_id)}, because the server had not accepted it")
            return state
        _forget(run.run_id)  # another machine has continued the run since
    return artifacts.read(run.run_id, STATE) if artifacts.has_artifact(run.run_id, STATE) else None


def unsent(run_id: str) -> dict[str, Any] | None:
    """Return the content of `unsent_state`; raise `Refusal` if it is damaged."""
    if (kept := unsent_state(run_id)) is None:
        return None
    with reading(kept, "the training state as it was written", "delete it; a resume then uses the previous state"):
        state: dict[str, Any] = content.of_sealed(content.read_state(kept))
    return state


def _place(run_id: str) -> Path:
    """Return the file in which a training state waits until the server accepts it."""
    return cache_folder("unsent") / run_id / Path(STATE).name


def _forget(run_id: str) -> None:
    shutil.rmtree(_place(run_id).parent, ignore_errors=True)
