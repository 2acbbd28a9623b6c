"""Runs with status RUNNING whose process no longer exists."""

from collections.abc import Sequence
from contextlib import suppress

from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

from nfa.registry.tracking import claims
from nfa.registry.tracking.claims import SILENCE, Silence, holder, released
from nfa.registry.tracking.processes import Life, life_of
from nfa.registry.tracking.store import client

WHY = "its process ended without storing a state (killed, crash or power cut)"


class Sweep:
    """Marks such runs of an experiment as killed.

    It never waits: if a process is not visible from here, the run is noted and checked again later.
    """

    def __init__(self, experiment: str) -> None:
        self._experiment = experiment
        self._noted: dict[str, Silence] = {}

    def __call__(self) -> list[str]:
        """Check all runs; return the ids of those that were marked."""
        query = "tags.`nfa.state` = 'running'"
        return self._mark(client().search_runs([self._experiment], query, max_results=100))

    def look_again(self) -> list[str]:
        """Check the noted runs again; return the ids of those that were marked."""
        runs = []
        for run_id in list(self._noted):
            with suppress(MlflowException):  # it may have been deleted
                runs.append(client().get_run(run_id))
        return self._mark(runs)

    def _mark(self, runs: Sequence[Run]) -> list[str]:
        over = [run for run in runs if self._is_over(run)]
        for run in over:
            self._noted.pop(run.info.run_id, None)
            _mark_killed(run)
        return [run.info.run_id for run in over]

    def _is_over(self, run: Run) -> bool:
        worked_on = _worked_on(run)
        text = holder(worked_on)
        life = Life.GONE if text is None else life_of(text)
        if life is Life.UNSEEN:
            silence = self._noted.setdefault(run.info.run_id, Silence(worked_on))
            return silence.seconds(worked_on) > SILENCE
        return life is Life.GONE


def _worked_on(run: Run) -> Run:
    """Return the run whose process counts: the run itself, or the one that it points to."""
    target = run.data.tags.get("nfa.resumes")
    if target:
        with suppress(MlflowException):
            return client().get_run(target)
    return run


def _mark_killed(run: Run) -> None:
    """Mark a run as killed, unless it has been resumed or has ended since it was read."""
    run_id, now = run.info.run_id, client().get_run(run.info.run_id)
    if now.data.tags.get("nfa.state") == "running" and claims.signs(now) == claims.signs(run):
        tags = {"nfa.state": "killed", "nfa.error": WHY, **released(now)}
        client().log_batch(run_id, tags=[RunTag(*item) for item in tags.items()])
        client().set_terminated(run_id, "KILLED")
