"""Runs, metric series and checkpoints in MLflow; with `nfa.mlflow_plugin`, the only place that knows MLflow."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nfa.tracking.artifacts import (
    check_space,
    copy_artifact,
    copy_artifacts,
    copy_artifacts_into,
    files,
    get,
    get_array,
    get_json,
    has_artifact,
    put,
    put_array,
    put_file,
    put_images,
    put_json,
    put_text,
    remove,
)
from nfa.tracking.heartbeat import is_gone, sign_of_life
from nfa.tracking.metrics import history, metric_rows
from nfa.tracking.registry import register
from nfa.tracking.runs import (
    DataInput,
    TrackedRun,
    active_run,
    can_continue,
    config,
    end_unended,
    is_running,
    open_run,
    pointing_to,
    reopen_run,
    run_of_another,
)
from nfa.tracking.store import StoreError, beside_store, children, find_run, reaching_store, tagged

if TYPE_CHECKING:
    from nfa.tracking.checkpoints import (
        Checkpoint,
        digest,
        epochs,
        load_checkpoint,
        load_state,
        load_workload,
        path_of,
        save_checkpoint,
        save_picture,
        save_state,
        unit,
        weights,
    )

__all__ = [
    "Checkpoint",
    "DataInput",
    "StoreError",
    "TrackedRun",
    "active_run",
    "beside_store",
    "can_continue",
    "check_space",
    "children",
    "config",
    "copy_artifact",
    "copy_artifacts",
    "copy_artifacts_into",
    "digest",
    "end_unended",
    "epochs",
    "files",
    "find_run",
    "get",
    "get_array",
    "get_json",
    "has_artifact",
    "history",
    "is_gone",
    "is_running",
    "load_checkpoint",
    "load_state",
    "load_workload",
    "metric_rows",
    "open_run",
    "path_of",
    "pointing_to",
    "put",
    "put_array",
    "put_file",
    "put_images",
    "put_json",
    "put_text",
    "reaching_store",
    "register",
    "remove",
    "reopen_run",
    "run_of_another",
    "save_checkpoint",
    "save_picture",
    "save_state",
    "sign_of_life",
    "tagged",
    "unit",
    "weights",
]


def __getattr__(name: str) -> Any:
    # Checkpoints need PyTorch, which takes a second to import; a look into the store does not.
    if name in __all__:
        return getattr(import_module("nfa.tracking.checkpoints"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
