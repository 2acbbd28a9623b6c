"""Runs, metric series and checkpoints in MLflow; with `nfa.mlflow_plugin`, the only place that knows MLflow."""

from nfa.tracking.artifacts import (
    check_space,
    copy_artifact,
    copy_artifacts,
    copy_artifacts_into,
    get_json,
    has_artifact,
    put_json,
    put_text,
)
from nfa.tracking.checkpoints import (
    Checkpoint,
    digest,
    epochs,
    load_checkpoint,
    load_state,
    load_workload,
    save_checkpoint,
    save_picture,
    save_state,
    weights,
)
from nfa.tracking.metrics import history, metric_rows
from nfa.tracking.runs import DataInput, TrackedRun, active_run, config, end_unended, open_run, reopen_run
from nfa.tracking.store import StoreError, children, find_run

__all__ = [
    "Checkpoint",
    "DataInput",
    "StoreError",
    "TrackedRun",
    "active_run",
    "check_space",
    "children",
    "config",
    "copy_artifact",
    "copy_artifacts",
    "copy_artifacts_into",
    "digest",
    "end_unended",
    "epochs",
    "find_run",
    "get_json",
    "has_artifact",
    "history",
    "load_checkpoint",
    "load_state",
    "load_workload",
    "metric_rows",
    "open_run",
    "put_json",
    "put_text",
    "reopen_run",
    "save_checkpoint",
    "save_picture",
    "save_state",
    "weights",
]
