"""Workloads, models and weights of stored trainings, each checked before it is used."""

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

THAT_CODE = "the code and arguments that the run was trained with", "go back to that code and those arguments"


class Checkpoint(NamedTuple):
    """A model as it was at an epoch, and the workload that it was trained on."""

    model: "nn.Module"
    workload: "Workload"


def weights(run_id: str, epoch: int) -> "dict[str, Tensor]":
    """Return a checkpoint's learned tensors by name, on the CPU; raise `Refusal` if the file is damaged."""
    path = tracking.stored_path(run_id, epoch)
    tensors, metadata = tracking.get_tensors(run_id, path)
    _check_config(run_id, path, metadata)
    return tensors


def whole_checkpoint(run_id: str, epoch: int) -> Path:
    """Return a checkpoint's file, to be read tensor by tensor; raise `Refusal` if it is damaged."""
    path = tracking.stored_path(run_id, epoch)
    file, (_, metadata) = tracking.whole(run_id, path)
    _check_config(run_id, path, metadata)
    return file


def check_checkpoint(run_id: str, epoch: int) -> None:
    """Raise `Refusal` if a checkpoint is damaged."""
    path = tracking.stored_path(run_id, epoch)
    _, metadata = tracking.read(run_id, path)
    _check_config(run_id, path, metadata)


def _check_config(run_id: str, path: str, metadata: Mapping[str, str]) -> None:
    """Raise `Refusal` if a checkpoint does not belong to the configuration in the run's config.json."""
    stored = _stored(run_id)
    if metadata.get("config_digest") not in (None, config_digest(stored)):
        got = f"config.json of run {run_id[:12]} together with {path}, which was trained with other parameters or data"
        allowed = "the config.json that the run was trained with"
        raise Refusal(got, allowed, "restore both from a copy of the run; without a copy, train again")


def load_weights(model: "nn.Module", run_id: str, epoch: int, workload: "Workload") -> None:
    """Load the weights of a checkpoint into a model.

    Raises `Refusal` if they do not fit the model, or if its outputs differ from those stored with the checkpoint. The
    outputs are compared on the examples that the run has stored, or else on those of the `workload`.
    """
    from nfa.learned import load_learned
    from nfa.observe.answers import answers, check_answers

    path = tracking.stored_path(run_id, epoch)
    tensors, metadata = tracking.get_tensors(run_id, path)
    _check_config(run_id, path, metadata)
    where = f"{path} of run {run_id[:12]}"
    with tracking.reading_of(run_id, path):
        said = json.loads(metadata.get(ANSWERS, "[]"))
    other_code = reading(f"a model whose weights are not those of {where}", *THAT_CODE)
    with other_code if said else tracking.reading_of(run_id, path):
        load_learned(model, tensors)
    if said:
        asked = _kept_examples(run_id)
        batch = asked.to(workload.device) if asked else None
        check_answers(said, answers(workload, model, batch), where)


def _kept_examples(run_id: str) -> "Batch | None":
    """Return the probe examples that a watched run has stored, or None."""
    from nfa.workloads.packed_examples import PROBE_EXAMPLES, unpacked

    if not tracking.has_artifact(run_id, PROBE_EXAMPLES):
        return None
    stored = tracking.get_tensors(run_id, PROBE_EXAMPLES)
    with tracking.reading_of(run_id, PROBE_EXAMPLES):
        return unpacked(*stored)


def take_up(run_id: str, *, parent: tracking.TrackedRun | None = None) -> tracking.TrackedRun:
    """Reopen a training run after checking that its files are undamaged; one that has none yet starts over."""
    run = tracking.reopen_run(run_id, parent=parent)
    if tracking.has_artifact(run.run_id, "config.json"):
        check_whole(run.run_id)
    return run


def has_begun(run_id: str) -> bool:
    """Return whether a training has stored what resuming needs; one that ended earlier starts over."""
    return tracking.has_artifact(run_id, "example_ids.json")


def check_whole(run_id: str) -> None:
    """Raise `Refusal` if a file that resuming needs is damaged."""
    files = family(_stored(run_id)["workload"]).files
    for path in ("config.json", "example_ids.json", *files, tracking.STATE):
        if tracking.has_artifact(run_id, path):
            tracking.read(run_id, path)
    tracking.unsent(run_id)
    kept = tracking.epochs(run_id)
    for epoch in {*kept[:1], *kept[-1:]}:
        check_checkpoint(run_id, epoch)


def _stored(run_id: str) -> dict[str, Any]:
    """Return a training's config.json; raise `Refusal` if it lacks something that rebuilding the workload needs."""
    stored: dict[str, Any] = tracking.get_json(run_id, "config.json")
    with tracking.reading_of(run_id, "config.json"):
        check_stored(stored)
    return stored


def example_ids(run_id: str) -> dict[str, list[int]]:
    """Return a training's example ids by split; raise `Refusal` if the stored file is unusable."""
    ids: dict[str, list[int]] = tracking.get_json(run_id, "example_ids.json")
    with tracking.reading_of(run_id, "example_ids.json"):
        check_ids(ids, _stored(run_id)["data"])
    return ids


def load_workload(
    run_id: str, *, device: str = "auto", data_dir: str | None = None, named: NamedWorkload = OWN_WORKLOAD
) -> "Workload":
    """Rebuild the workload of a run (data, splits and model), with the code that is `named`; see `load_checkpoint`."""
    from nfa.workloads.devices import choose_device

    stored, ids = _stored(run_id), example_ids(run_id)
    kind = family(stored["workload"])
    kind.code(stored, named)
    return kind.training.rebuild(
        StoredTraining(stored, ids, choose_device(device), data_dir, partial(_tensors, run_id), named)
    )


def code_of(run_id: str, named: NamedWorkload) -> dict[str, Any]:
    """Return what identifies the code that rebuilds a run's workload; empty if it is part of nfa.

    Raises `Refusal` if that code may not be imported.
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
    """Load a model as it was at a checkpoint, together with its workload; both are rebuilt from the stored run.

    Args:
        run_id: A run id, a unique prefix of one, or "latest". Alternatively a registered checkpoint, without `epoch`:
            "models:/NAME@champion" or "models:/NAME/VERSION".
        epoch: A checkpoint's epoch (for language models, its optimizer step), "last", or "best" by validation.
        device: A torch device; "auto" = CUDA if available, else the CPU.
        data_dir: Folder that holds the dataset's files now, if they have moved.
        workload: "module:function" that makes the model, for runs whose own code may not be imported by itself.
        workload_args: Arguments of that function, such as "width=32,bias=true".

    Returns:
        The `model` with the checkpoint's weights, and the `workload` with its data and splits.

    Raises:
        Refusal: The run, epoch or registered model does not exist, the data are not those of the run, or the code
            gives different outputs than the run's.
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
