"""Trainings as they are stored: their workloads, models and weights, each checked before it is used.

PyTorch is loaded once a model or its weights are asked for: a look at what a run has stored needs none.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nfa.checkpoint_files import ANSWERS
from nfa.errors import Refusal, reading
from nfa.registry import tracking
from nfa.registry.families.protocol import OWN_WORKLOAD, NamedWorkload, StoredTraining
from nfa.registry.families.registry import family
from nfa.registry.families.stored import check_ids, check_stored, config_digest
from nfa.registry.tracking.registry import MODELS, registered

if TYPE_CHECKING:
    import torch.nn as nn
    from torch import Tensor

    from nfa.workload import Batch, Workload

THAT_CODE = "code and arguments that make the run's own model", "go back to those with which the run was trained"


class Checkpoint(NamedTuple):
    """A model as it was at an epoch, and the workload it was trained on."""

    model: "nn.Module"
    workload: "Workload"


def weights(run_id: str, epoch: int) -> "dict[str, Tensor]":
    """Learned tensors of a checkpoint by their names in the model, on the CPU; `Refusal` for one that is damaged."""
    path = tracking.stored_path(run_id, epoch)
    tensors, metadata = tracking.get_tensors(run_id, path)
    _check_config(run_id, path, metadata)
    return tensors


def whole_checkpoint(run_id: str, epoch: int) -> Path:
    """The file of a checkpoint, to be read tensor by tensor; `Refusal` for one that is damaged."""
    path = tracking.stored_path(run_id, epoch)
    file, (_, metadata) = tracking.whole(run_id, path)
    _check_config(run_id, path, metadata)
    return file


def check_checkpoint(run_id: str, epoch: int) -> None:
    """`Refusal` for a checkpoint that is damaged."""
    path = tracking.stored_path(run_id, epoch)
    _, metadata = tracking.read(run_id, path)
    _check_config(run_id, path, metadata)


def _check_config(run_id: str, path: str, metadata: Mapping[str, str]) -> None:
    """`Refusal` for a checkpoint of another configuration than the run's config.json says."""
    stored = _stored(run_id)
    if metadata.get("config_digest") not in (None, config_digest(stored)):
        got = f"config.json of run {run_id[:12]} with its {path}, which was trained with other parameters or data"
        allowed = "the config.json that the run was trained with"
        raise Refusal(got, allowed, "restore both from a copy of the run; without one, make the run again")


def load_weights(model: "nn.Module", run_id: str, epoch: int, workload: "Workload") -> None:
    """Give a model the weights of a checkpoint; `Refusal` where they are not this model's.

    Also where the model answers otherwise than it did when they were stored: on the examples that the run has kept, or
    on those of the `workload`.
    """
    from nfa.learned import load_learned
    from nfa.observe.answers import answers, check_answers

    path = tracking.stored_path(run_id, epoch)
    tensors, metadata = tracking.get_tensors(run_id, path)
    _check_config(run_id, path, metadata)
    where = f"{path} of run {run_id[:12]}"
    with tracking.reading_of(run_id, path):
        said = json.loads(metadata.get(ANSWERS, "[]"))
    other_code = reading(f"a model that does not have the weights of {where}", *THAT_CODE)
    with other_code if said else tracking.reading_of(run_id, path):
        load_learned(model, tensors)
    if said:
        asked = _kept_examples(run_id)
        batch = asked.to(workload.device) if asked else None
        check_answers(said, answers(workload, model, batch), where)


def _kept_examples(run_id: str) -> "Batch | None":
    """Those that a watched run asks, whose workload's own are others."""
    from nfa.workloads.packed_examples import PROBE_EXAMPLES, unpacked

    if not tracking.has_artifact(run_id, PROBE_EXAMPLES):
        return None
    stored = tracking.get_tensors(run_id, PROBE_EXAMPLES)
    with tracking.reading_of(run_id, PROBE_EXAMPLES):
        return unpacked(*stored)


def take_up(run_id: str, *, parent: tracking.TrackedRun | None = None) -> tracking.TrackedRun:
    """`reopen_run` for a training whose files are whole."""
    run = tracking.reopen_run(run_id, parent=parent)
    check_whole(run.run_id)
    return run


def has_begun(run_id: str) -> bool:
    """Whether a training has stored what it goes on from; one that ended before has not."""
    return tracking.has_artifact(run_id, "example_ids.json")


def check_whole(run_id: str) -> None:
    """`Refusal` where something that a training goes on from is damaged."""
    files = family(_stored(run_id)["workload"]).files
    for path in ("config.json", "example_ids.json", *files, tracking.STATE):
        if tracking.has_artifact(run_id, path):
            tracking.read(run_id, path)
    tracking.unsent(run_id)
    kept = tracking.epochs(run_id)
    for epoch in {*kept[:1], *kept[-1:]}:
        check_checkpoint(run_id, epoch)


def _stored(run_id: str) -> dict[str, Any]:
    """The config.json of a training; `Refusal` where it does not say all that a workload is rebuilt from."""
    stored: dict[str, Any] = tracking.get_json(run_id, "config.json")
    with tracking.reading_of(run_id, "config.json"):
        check_stored(stored)
    return stored


def example_ids(run_id: str) -> dict[str, list[int]]:
    """The examples of a training, by split; `Refusal` for a file that does not say them."""
    ids: dict[str, list[int]] = tracking.get_json(run_id, "example_ids.json")
    with tracking.reading_of(run_id, "example_ids.json"):
        check_ids(ids, _stored(run_id)["data"])
    return ids


def load_workload(
    run_id: str, *, device: str = "auto", data_dir: str | None = None, named: NamedWorkload = OWN_WORKLOAD
) -> "Workload":
    """Data, splits and model of a run, rebuilt from the run, and the code that is `named`; see `load_checkpoint`."""
    from nfa.workloads.devices import choose_device

    stored, ids = _stored(run_id), example_ids(run_id)
    kind = family(stored["workload"])
    kind.code(stored, named)
    return kind.training.rebuild(
        StoredTraining(stored, ids, choose_device(device), data_dir, partial(_tensors, run_id), named)
    )


def code_of(run_id: str, named: NamedWorkload) -> dict[str, Any]:
    """What tells apart the code that a run's workload is rebuilt by; empty where it is this project's.

    `Refusal` where that may not be imported.
    """
    stored = _stored(run_id)
    return family(stored["workload"]).code(stored, named)


def _tensors(run_id: str, path: str) -> "dict[str, Tensor]":
    return tracking.get_tensors(run_id, path)[0]


def load_checkpoint(
    run_id: str,
    epoch: int | str | None = None,
    *,
    device: str = "auto",
    data_dir: str | None = None,
    workload: str = "",
    workload_args: str = "",
) -> Checkpoint:
    """Model and workload of a run at an epoch ("last", or "best" as its tag says), rebuilt from the run alone.

    `run_id` is an id, a unique prefix, or "latest"; or, without an epoch, a registered checkpoint:
    "models:/NAME@champion" or "models:/NAME/VERSION". `data_dir` says where the dataset's files are now, if they moved.
    `workload`, "module:function", names the code that makes the model again, with `workload_args`, where a run may not
    have it imported by itself. Raises `Refusal` for an unknown run, epoch or model, for data that are not those of the
    run, and for code that gives other answers than the run's.
    """
    if run_id.startswith(MODELS):
        run_id, epoch = registered(run_id, epoch)
    run = tracking.find_run(run_id)
    found, number = run.info.run_id, tracking.chosen_epoch(run, epoch)
    tracking.stored_path(found, number)  # an unknown epoch is refused before any data are read
    made = load_workload(found, device=device, data_dir=data_dir, named=NamedWorkload(workload, workload_args))
    model = made.model()
    load_weights(model, found, number, made)
    return Checkpoint(model, made)
