"""A tracked run from its opening to its true end."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Param, Run, RunTag
from mlflow.tracking.context.registry import resolve_tags

from nfa import __version__
from nfa.ends import Interrupted, shielded
from nfa.errors import Refusal
from nfa.tracking import artifacts
from nfa.tracking.heartbeat import Heartbeat, is_alive, sweep
from nfa.tracking.metrics import MetricLog, known_steps
from nfa.tracking.store import StoreError, client, current_experiment, find_run, link, plain_param, reaching_store

ENDS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
TAG_LENGTH = 5000


@dataclass(frozen=True)
class DataInput:
    """A dataset as MLflow shows it: name, digest, where it came from, and the split it was used for."""

    name: str
    digest: str
    source: str
    split: str


class TrackedRun:
    """An open run. Use it in a `with` block: how the block ends is how the run ends, in MLflow and in `nfa.state`."""

    def __init__(self, run: Run, *, wrapper_id: str | None = None, continued: bool = False) -> None:
        self.info = run
        self.run_id: str = run.info.run_id
        self.continued = continued
        self._wrapper_id = wrapper_id
        self._heartbeat = Heartbeat(self.run_id)
        self.metrics = MetricLog(self.run_id, known_steps(self.run_id) if continued else set())

    @property
    def link(self) -> str:
        """Where to look at the run."""
        return link(self.info)

    def __enter__(self) -> "TrackedRun":
        with reaching_store(), shielded():
            client().update_run(self.run_id, status="RUNNING")
            self.tag({"nfa.state": "running", "nfa.error": ""})
            if self._wrapper_id:
                tags = {"nfa.resumes": self.run_id, "nfa.state": "running"}
                client().log_batch(self._wrapper_id, tags=[RunTag(*item) for item in tags.items()])
            self._heartbeat.start()
        return self

    def __exit__(self, _kind: type | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        self._heartbeat.stop()
        try:
            with shielded():
                self.metrics.flush()
                self._end(error)
        except StoreError as trouble:
            if error is None:
                raise
            print(f"the run's end could not be written to the store: {trouble}")

    def _end(self, error: BaseException | None) -> None:
        state = "finished" if error is None else "killed" if isinstance(error, Interrupted) else "failed"
        reason = str(error)[:TAG_LENGTH] if error else ""
        for run_id in filter(None, (self.run_id, self._wrapper_id)):
            mark(run_id, state, reason)
            client().set_terminated(run_id, ENDS[state])

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        with shielded():
            client().log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Resolved parameters: plain where `mlflow run` logged none, resolved.<name> where it logged another text."""
        logged = client().get_run(self.run_id).data.params
        params = []
        for name, value in values.items():
            if name not in logged:
                params.append(Param(name, str(value)))
            elif plain_param(logged[name]) != str(value) and f"resolved.{name}" not in logged:
                params.append(Param(f"resolved.{name}", str(value)))
        with shielded():
            client().log_batch(self.run_id, params=params)

    def log_datasets(self, inputs: Sequence[DataInput]) -> None:
        """Datasets as MLflow inputs, with the split as their context."""
        entities = [
            DatasetInput(
                Dataset(item.name, item.digest[:36], "local", json.dumps({"uri": item.source})),
                [InputTag("mlflow.data.context", item.split)],
            )
            for item in inputs
        ]
        with shielded():
            client().log_inputs(self.run_id, entities)


def open_run(
    entrypoint: str, workload: str, *, name: str = "", parent: TrackedRun | None = None, tags: Mapping[str, str] = {}
) -> TrackedRun:
    """A new run, or the one that `mlflow run` made for this process; `Refusal` where the store cannot be written."""
    with reaching_store(), shielded():
        adopted = None if parent else os.environ.pop("MLFLOW_RUN_ID", None)
        if adopted:
            run = client().get_run(adopted)
            if name:
                client().update_run(adopted, name=name)
        else:
            experiment = parent.info.info.experiment_id if parent else current_experiment()
            nested = {"mlflow.parentRunId": parent.run_id} if parent else {}
            run = client().create_run(experiment, tags=resolve_tags(nested), run_name=name or None)
        opened = TrackedRun(run)
        opened.tag({"nfa.entrypoint": entrypoint, "nfa.workload": workload, "nfa.version": __version__, **tags})
        sweep(run.info.experiment_id)
    return opened


def reopen_run(run_id: str, *, parent: TrackedRun | None = None) -> TrackedRun:
    """A killed or failed run, to be continued in place; under `mlflow run` its wrapper run only points to it."""
    with reaching_store(), shielded():
        run = find_run(run_id)
        state = run.data.tags.get("nfa.state")
        if "nfa.entrypoint" not in run.data.tags or state is None:
            raise Refusal(f"resume={run_id}", "a run made by train", "give the id of the training run itself")
        if state == "running" and is_alive(run.data.tags):
            raise Refusal(
                f"resume={run_id} (still running)", "a killed or failed run", "wait for it, or stop its process first"
            )
        if state == "finished":
            raise Refusal(
                f"resume={run_id} (finished)",
                "a killed or failed run",
                "start a new run; epochs of a finished one are fixed",
            )
        wrapper_id = None if parent else os.environ.pop("MLFLOW_RUN_ID", None)
        return TrackedRun(run, wrapper_id=wrapper_id, continued=True)


def mark(run_id: str, state: str, reason: str) -> None:
    """Write a run's true state, and why, into its tags."""
    tags = {"nfa.state": state, "nfa.error": reason[:TAG_LENGTH]}
    client().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def mark_unopened(run_id: str, state: str, reason: str) -> None:
    """The same for a run that `mlflow run` made and nobody opened; a store that cannot be written is let be."""
    try:
        mark(run_id, state, reason)
    except StoreError:
        return


def config(run_id: str) -> dict[str, Any]:
    """The `config.json` of a run: everything its workload is rebuilt from."""
    content: dict[str, Any] = artifacts.get_json(find_run(run_id).info.run_id, "config.json")
    return content
