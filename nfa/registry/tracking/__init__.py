"""Runs, metric series and checkpoints in MLflow; with the plugin, the only place that knows MLflow."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nfa.content import json_digest as digest
from nfa.registry.tracking.artifacts import (
    blocked,
    check_space,
    copy_artifact,
    copy_artifacts,
    copy_artifacts_into,
    files,
    get,
    get_array,
    get_json,
    get_tensors,
    has_artifact,
    put,
    put_array,
    put_file,
    put_images,
    put_json,
    put_tensors,
    put_text,
    read,
    reading_of,
    remove,
    whole,
)
from nfa.registry.tracking.claims import Taken, is_running
from nfa.registry.tracking.metrics import history, metric_rows
from nfa.registry.tracking.processes import Life, life_of, sign
from nfa.registry.tracking.registry import register
from nfa.registry.tracking.runs import (
    DataInput,
    TrackedRun,
    can_continue,
    config,
    end_unended,
    open_run,
    pointing_to,
    reopen_run,
    run_of_another,
)
from nfa.registry.tracking.states import STATE, load_state, save_state, unsent_state
from nfa.registry.tracking.store import (
    StoreError,
    beside_store,
    children,
    find_run,
    is_of_store,
    link,
    reach,
    reaching_store,
    tagged,
)

if TYPE_CHECKING:
    from nfa.registry.tracking.checkpoints import (
        Checkpoint,
        check_checkpoint,
        check_whole,
        epochs,
        example_ids,
        load_checkpoint,
        load_weights,
        load_workload,
        path_of,
        save_checkpoint,
        save_picture,
        take_up,
        unit,
        weights,
        whole_checkpoint,
    )

__all__ = [
    "STATE",
    "Checkpoint",
    "DataInput",
    "Life",
    "StoreError",
    "Taken",
    "TrackedRun",
    "beside_store",
    "blocked",
    "can_continue",
    "check_checkpoint",
    "check_space",
    "check_whole",
    "children",
    "config",
    "copy_artifact",
    "copy_artifacts",
    "copy_artifacts_into",
    "digest",
    "end_unended",
    "epochs",
    "example_ids",
    "files",
    "find_run",
    "get",
    "get_array",
    "get_json",
    "get_tensors",
    "has_artifact",
    "history",
    "is_of_store",
    "is_running",
    "life_of",
    "link",
    "load_checkpoint",
    "load_state",
    "load_weights",
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
    "put_tensors",
    "put_text",
    "reach",
    "reaching_store",
    "read",
    "reading_of",
    "register",
    "remove",
    "reopen_run",
    "run_of_another",
    "save_checkpoint",
    "save_picture",
    "save_state",
    "sign",
    "tagged",
    "take_up",
    "unit",
    "unsent_state",
    "weights",
    "whole",
    "whole_checkpoint",
]


def __getattr__(name: str) -> Any:
    # Checkpoints need PyTorch, which takes a second to import; a look into the store does not.
    if name in __all__:
        return getattr(import_module("nfa.registry.tracking.checkpoints"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
