"""Tracked runs, from opening to the true end state."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, Run, RunTag
from mlflow.tracking.context.registry import resolve_tags

from nfa import __version__
from nfa.errors import Pruned, Refusal, headline
from nfa.masking import masked
from nfa.registry.signals import Interrupted, shielded, stopped
from nfa.registry.tracking import artifacts, first_use, store
from nfa.registry.tracking.claims import BEAT, Claim, is_claimed, is_running, wait_until_free
from nfa.registry.tracking.dead_runs import Sweep
from nfa.registry.tracking.finding_runs import find_run
from nfa.registry.tracking.generated_names import is_generated
from nfa.registry.tracking.heartbeat import Heartbeat
from nfa.registry.tracking.metrics import MetricLog, logged_rows
from nfa.registry.tracking.processes import sign
from nfa.registry.tracking.series_file import LoggedRows
from nfa.registry.tracking.store import StoreError, client, reaching_store
from nfa.registry.tracking.system_metrics import SystemMetrics

ENDS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED", "pruned": "KILLED"}
TAG_LENGTH = 5000
_unended: dict[str, Claim | None] = {}  # open runs of this process, and its claims on them


@dataclass(frozen=True)
class DataInput:
    """A dataset as MLflow shows it: name, digest, source, and the split that it was used for."""

    name: str
    digest: str
    source: str
    split: str


class TrackedRun:
    """An open run, used in a `with` block; the way the block ends decides the run's status and the tag `nfa.state`.

    A `thrifty` run, one of many, keeps only its first and last checkpoint and draws no figures. `listener` is called
    with the metrics of every step after they are logged, and with whether it is the last step. It may end the run by
    raising `Pruned`.
    """

    def __init__(
        self, run: Run, *, wrapper_id: str | None = None, continued: bool = False, sweep: Sweep | None = None
    ) -> None:
        self.info = run
        self.thrifty = False
        self.listener: Callable[[int, Mapping[str, float], bool], None] | None = None
        self.run_id: str = run.info.run_id
        self.continued, self._wrapper_id = continued, wrapper_id
        self.claim = Claim.after(run)
        self._heartbeat = Heartbeat(self.claim, sweep.look_again if sweep else list)
        self.check_held = self._heartbeat.check
        self._system = SystemMetrics(run, self.check_held)
        self.metrics = MetricLog(self.run_id, LoggedRows(), self.check_held)

    @property
    def link(self) -> str:
        """How to open the run in MLflow's UI."""
        return store.link(self.info)

    def __enter__(self) -> "TrackedRun":
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # our last line prints the link
        with reaching_store(), shielded():
            self.claim.write()
            _unended[self.run_id] = self.claim
            os.environ.pop("MLFLOW_RUN_ID", None)  # this process ends the run; its child processes must not adopt it
            client().update_run(self.run_id, status="RUNNING")
            self.tag({"nfa.state": "running", "nfa.error": ""})
            if self._wrapper_id:
                tags = {"nfa.resumes": self.run_id, "nfa.state": "running"}
                client().log_batch(self._wrapper_id, tags=[RunTag(*item) for item in tags.items()])
            self._heartbeat.start()
            self._system.start()
            if self.continued:
                self.metrics = MetricLog(self.run_id, logged_rows(self.run_id), self.check_held)
        return self

    def __exit__(self, _kind: type | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        with shielded():
            self._system.stop()
            self._heartbeat.stop()
            try:
                self.metrics.end(self.info)
                self._end(error)
            except StoreError as trouble:
                if error is None:
                    raise
                print(f"the run's final state could not be stored: {headline(trouble)}", file=sys.stderr)

    def _end(self, error: BaseException | None) -> None:
        state = _state(error)
        reason = str(error) if error else ""
        if self.claim.holds():
            _end_run(self.run_id, state, reason, self.claim)
        if self._wrapper_id:
            _end_run(self._wrapper_id, state, reason)
        _unended.pop(self.run_id, None)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        with shielded():
            client().log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log resolved parameters: as <name>, or as resolved.<name> if `mlflow run` logged a different text."""
        logged = client().get_run(self.run_id).data.params
        params = []
        for name, value in values.items():
            if name not in logged:
                params.append(Param(name, str(value)))
            elif store.plain_param(logged[name]) != str(value) and f"{store.RESOLVED}{name}" not in logged:
                params.append(Param(f"{store.RESOLVED}{name}", str(value)))
        with shielded():
            client().log_batch(self.run_id, params=params)

    def log_datasets(self, inputs: Sequence[DataInput]) -> None:
        """Log datasets as MLflow inputs with the split as their context."""
        entities = [
            DatasetInput(
                Dataset(item.name, item.digest[:36], "local", json.dumps({"uri": item.source})),
                [InputTag("mlflow.data.context", item.split)],
            )
            for item in inputs
        ]
        with shielded():
            first_use.again(client().log_inputs, self.run_id, entities)


def _state(error: BaseException | None) -> str:
    if error is None:
        return "finished"
    if isinstance(error, Interrupted) or (isinstance(error, StoreError) and stopped()):
        return "killed"
    return "pruned" if isinstance(error, Pruned) else "failed"


def open_run(
    entrypoint: str,
    workload: str,
    *,
    name: str = "",
    otherwise: str = "",
    parent: TrackedRun | None = None,
    tags: Mapping[str, str] = {},
    experiment: str = "",
    adopt: bool = True,
) -> TrackedRun:
    """Open a new run or, with `adopt` and without a parent, the one that `mlflow run` created for this process.

    A new run belongs to its parent's experiment, the given one, or the current one. `name` is the name that the user
    gave; a run that nobody has named is named `otherwise`. Raises `Refusal` if the store is not writable.
    """
    tags = {**_first_tags(entrypoint, workload), **tags}
    with reaching_store(), shielded():
        adopted = os.environ.get("MLFLOW_RUN_ID") if adopt and not parent else None
        new = name or otherwise
        run = _adopted(adopted, name, otherwise, tags) if adopted else _created(parent, experiment, new, tags)
        _unended[run.info.run_id] = None
        sweep = Sweep(run.info.experiment_id)
        sweep()
        return TrackedRun(run, sweep=sweep)


def _first_tags(entrypoint: str, workload: str) -> dict[str, str]:
    """Return the tags of a new run; they are part of its creation, so that it counts as stale if we are killed."""
    made_by = {"nfa.entrypoint": entrypoint, "nfa.workload": workload, "nfa.version": __version__}
    return {**made_by, "nfa.state": "running", BEAT: sign()}


def _created(parent: TrackedRun | None, experiment: str, name: str, tags: Mapping[str, str]) -> Run:
    experiment = parent.info.info.experiment_id if parent else experiment or store.current_experiment()
    nested = {"mlflow.parentRunId": parent.run_id} if parent else {}
    return client().create_run(experiment, tags=resolve_tags({**nested, **tags}), run_name=name or None)


def _adopted(run_id: str, name: str, otherwise: str, tags: Mapping[str, str]) -> Run:
    run = client().get_run(run_id)
    if "nfa.state" in run.data.tags:
        got, allowed = f"run {run_id} ({run.data.tags['nfa.state']})", "a new run"
        raise Refusal(got, allowed, f"leave --run-id out; to continue a killed or failed run: -P resume={run_id}")
    client().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    if name := name or (otherwise if is_generated(run.info.run_name) else ""):
        client().update_run(run_id, name=name)
    return client().get_run(run_id)  # with its tags


def reopen_run(run_id: str, *, parent: TrackedRun | None = None, finished_too: bool = False) -> TrackedRun:
    """Reopen a killed or failed run to continue it in place; under `mlflow run`, the wrapper run only points to it.

    Raises `Refusal` if it cannot be continued, and `Taken` if another process is working on it. A process that is not
    visible from here is watched for a while.
    """
    with reaching_store():
        run = find_run(run_id)
        state = run.data.tags.get("nfa.state")
        if "nfa.entrypoint" not in run.data.tags or state is None:
            raise Refusal(f"resume={run_id}", "a training run", "give the id of the training run itself")
        wait_until_free(run)
        if state == "pruned" or (state == "finished" and not finished_too):
            got = f"resume={run_id} ({state})"
            raise Refusal(got, "a killed or failed run", f"start a new run; a {state} run cannot be extended")
        wrapper_id = None if parent else os.environ.get("MLFLOW_RUN_ID")
        artifacts.sweep_unfinished(run)
        return TrackedRun(run, wrapper_id=wrapper_id, continued=True)


def join_active(entrypoint: str, workload: str, otherwise: str) -> TrackedRun:
    """Return this process's active MLflow run: a new one, or one of the same training to be continued.

    A new one that nobody has named is named `otherwise`.

    Raises `Refusal` if no run is active, or if it tracks something else.
    """
    active = mlflow.active_run()
    if active is None:
        got = "nfa.track without an active MLflow run"
        raise Refusal(got, "an active run", "put it inside: with mlflow.start_run(): …")
    with reaching_store(), shielded():
        run = client().get_run(active.info.run_id)
        if "nfa.state" in run.data.tags:
            made_by = run.data.tags.get("nfa.entrypoint"), run.data.tags.get("nfa.workload")
            if made_by != (entrypoint, workload):
                got = f"run {run.info.run_id[:12]} (of {made_by[0]}, workload {made_by[1]})"
                raise Refusal(got, f"a new run, or one of {entrypoint} with {workload}", "start a new run")
            return reopen_run(run.info.run_id, finished_too=True)
        sweep = Sweep(run.info.experiment_id)
        sweep()
        opened = _adopted(run.info.run_id, "", otherwise, _first_tags(entrypoint, workload))
        return TrackedRun(opened, sweep=sweep)


def can_continue(run: Run) -> bool:
    """Return whether a run was killed or failed after it had stored enough to be resumed."""
    ended = run.data.tags.get("nfa.state") in ("finished", "pruned")
    return not ended and not is_running(run) and artifacts.has_artifact(run.info.run_id, "config.json")


def run_of_another(run_id: str) -> TrackedRun:
    """Return a run that another process has opened, so that children can be added; it is not ended here."""
    with reaching_store():
        return TrackedRun(client().get_run(run_id))


@contextmanager
def pointing_to(run_id: str) -> Iterator[None]:
    """Let the run that `mlflow run` created for this process point to the run that this process works for."""
    wrapper_id = os.environ.pop("MLFLOW_RUN_ID", None)
    if wrapper_id is None:
        yield
        return
    client().log_batch(wrapper_id, tags=[RunTag("nfa.resumes", run_id), RunTag("nfa.state", "running")])
    _unended[wrapper_id] = None
    yield
    _end_run(wrapper_id, "finished", "")
    del _unended[wrapper_id]


def _end_run(run_id: str, state: str, reason: str, claim: Claim | None = None) -> None:
    """Write a run's true state and its reason into its tags, and release the claim on it."""
    tags = {"nfa.state": state, "nfa.error": masked(reason)[:TAG_LENGTH], **(claim.released if claim else {})}
    client().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    client().set_terminated(run_id, ENDS[state])


def end_unended(state: str, reason: str) -> None:
    """End all runs that this process opened, or that `mlflow run` created for it; errors of the store are ignored."""
    adopted = os.environ.get("MLFLOW_RUN_ID")
    waiting = {**_unended, **({adopted: None} if adopted else {})}
    if not waiting:
        return
    with suppress(Refusal), reaching_store():
        for run_id, claim in waiting.items():
            run = client().get_run(run_id)
            if run.data.tags.get("nfa.state") not in ENDS and (claim.holds() if claim else not is_claimed(run)):
                _end_run(run_id, state, reason, claim)
