"""Checkpoints of a run as safetensors artifacts, and the state from which training goes on."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch.nn as nn
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Run
from torch import Tensor

from nfa import __version__
from nfa.content import json_digest
from nfa.errors import Refusal
from nfa.masking import masked_values
from nfa.registry.families.rebuild import INITIAL, rebuild
from nfa.registry.signals import shielded
from nfa.registry.tracking import artifacts
from nfa.registry.tracking.learned import learned_state, load_learned
from nfa.registry.tracking.registry import MODELS, registered
from nfa.registry.tracking.runs import TrackedRun, reopen_run
from nfa.registry.tracking.states import STATE, unsent
from nfa.registry.tracking.store import children, client, find_run
from nfa.registry.training.stored import check_ids, check_stored, identity
from nfa.sinks.pictures import KINDS, mask_texts, write_picture
from nfa.workload import Workload

BEST, WORDS = "nfa.best_epoch", ("last", "best")
SHOWN = 5  # runs named in a message
UNITS = {"epoch": 4, "step": 6}  # what checkpoints are counted in, and with how many digits
_NAME = re.compile(r"checkpoints/(epoch|step)_(\d+)\.safetensors")


class Checkpoint(NamedTuple):
    """A model as it was at an epoch, and the workload it was trained on."""

    model: nn.Module
    workload: Workload


def path_of(number: int, unit: str = "epoch") -> str:
    """Artifact path of a checkpoint.

    >>> path_of(20), path_of(40, "step")
    ('checkpoints/epoch_0020.safetensors', 'checkpoints/step_000040.safetensors')
    """
    return f"checkpoints/{unit}_{number:0{UNITS[unit]}d}.safetensors"


def save_checkpoint(
    run: TrackedRun, model: nn.Module, *, epoch: int | None, step: int | None, stored: Mapping[str, Any]
) -> str:
    """Store what has been learned so far and return the id of the LoggedModel that stands for it in MLflow's models.

    `stored` is what the run's config.json was made of.

    It is named by its epoch, or by its step where `epoch` is None; a `step` of None is not known. Doing it again (after
    a crash) gives the same artifact and the same LoggedModel.
    """
    config_digest = json_digest(identity(masked_values(stored)))
    known = {"epoch": epoch, "step": step, "config_digest": config_digest, "nfa_version": __version__}
    metadata = {name: str(value) for name, value in known.items() if value is not None}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in learned_state(model).items()}
    unit, number = ("epoch", epoch) if epoch is not None else ("step", step)
    assert number is not None
    run.check_held()
    artifacts.put_tensors(run.info, path_of(number, unit), tensors, metadata)
    with shielded():
        return _logged_model(run, unit, number, metadata)


def _logged_model(run: TrackedRun, unit: str, number: int, metadata: Mapping[str, str]) -> str:
    path = path_of(number, unit)
    known = _known_models(run) if run.continued else {}
    model = known.get(path) or client().create_logged_model(
        run.info.info.experiment_id,
        name=Path(path).stem,
        source_run_id=run.run_id,
        tags={f"nfa.{unit}": str(number), "nfa.checkpoint": path},
        params=dict(metadata),
        model_type="checkpoint",
    )
    if path not in known or not _is_output(run, model.model_id):
        client().log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=number)])
    if model.status != LoggedModelStatus.READY:
        client().finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return str(model.model_id)


def _known_models(run: TrackedRun) -> dict[str, Any]:
    models = client().search_logged_models([run.info.info.experiment_id], f"source_run_id = '{run.run_id}'")
    return {model.tags["nfa.checkpoint"]: model for model in models if "nfa.checkpoint" in model.tags}


def _is_output(run: TrackedRun, model_id: str) -> bool:
    outputs = client().get_run(run.run_id).outputs
    return any(output.model_id == model_id for output in (outputs.model_outputs if outputs else []))


def epochs(run_id: str) -> list[int]:
    """Epochs (of a LoRA run: optimizer steps) that a run has checkpoints of."""
    return sorted(_paths(run_id))


def unit(run_id: str) -> str:
    """What a run's checkpoints are counted in: "epoch" or "step"."""
    path = next(iter(_paths(run_id).values()), "")
    return "step" if Path(path).name.startswith("step_") else "epoch"


def _paths(run_id: str) -> dict[int, str]:
    matches = (_NAME.fullmatch(path) for path in artifacts.names(run_id, "checkpoints"))
    return {int(match[2]): match[0] for match in matches if match}


def weights(run_id: str, epoch: int) -> dict[str, Tensor]:
    """Learned tensors of a checkpoint by their names in the model, on the CPU; `Refusal` for one that is damaged."""
    path = _path(run_id, epoch)
    tensors, metadata = artifacts.get_tensors(run_id, path)
    _check_config(run_id, path, metadata)
    return tensors


def whole_checkpoint(run_id: str, epoch: int) -> Path:
    """The file of a checkpoint, to be read tensor by tensor; `Refusal` for one that is damaged."""
    path = _path(run_id, epoch)
    file, (_, metadata) = artifacts.whole(run_id, path)
    _check_config(run_id, path, metadata)
    return file


def check_checkpoint(run_id: str, epoch: int) -> None:
    """`Refusal` for a checkpoint that is damaged."""
    path = _path(run_id, epoch)
    _, metadata = artifacts.read(run_id, path)
    _check_config(run_id, path, metadata)


def _path(run_id: str, epoch: int) -> str:
    paths = _paths(run_id)
    if not paths:
        raise _without_checkpoints(find_run(run_id), epoch)
    if epoch not in paths:
        available = ", ".join(map(str, sorted(paths)))
        raise Refusal(
            f"{unit(run_id)} {epoch} of run {run_id[:12]}", f"its checkpoints: {available}", "choose one of them"
        )
    return paths[epoch]


def _without_checkpoints(run: Run, epoch: int | str | None) -> Refusal:
    """Names the runs below one that has none itself, and what to type."""
    got, owners = f"run {run.info.run_id[:12]} (it has no checkpoints)", list(_owners(run))
    if not owners:
        return Refusal(got, "a run that has trained something, or a parent of such runs", "train it first")
    shown = [f"{owner.info.run_name} {owner.info.run_id[:12]}" for owner in owners]
    more = f" and {len(owners) - SHOWN} more" if len(owners) > SHOWN else ""
    known = epoch if epoch in (*WORDS, *epochs(owners[0].info.run_id)) else "last"
    typed = f"load_checkpoint({owners[0].info.run_id[:12]!r}, epoch={known!r})"
    return Refusal(got, f"a run below it: {', '.join(shown[:SHOWN])}{more}", typed)


def _owners(run: Run) -> Iterator[Run]:
    for child in children(run.info.run_id, run.info.experiment_id):
        if epochs(child.info.run_id):
            yield child
        yield from _owners(child)


def _number(run: Run, epoch: int | str | None) -> int:
    """The epoch that is meant; `Refusal` for a run without checkpoints, for no epoch, and where none is the best."""
    existing = epochs(run.info.run_id)
    if not existing:
        raise _without_checkpoints(run, epoch)
    if epoch == "last":
        return existing[-1]
    if epoch == "best" and BEST in run.data.tags:
        return int(run.data.tags[BEST])
    if epoch is not None and not isinstance(epoch, str):
        return epoch
    why = "without an epoch" if epoch is None else f"with epoch={epoch!r}"
    why += f" (it has no {BEST}: it has not finished)" if epoch == "best" else ""
    allowed = f"one of {existing}, or 'last', or 'best' of a finished run"
    raise Refusal(f"run {run.info.run_id[:12]} {why}", allowed, "load_checkpoint(run_id, epoch='last')")


def _check_config(run_id: str, path: str, metadata: Mapping[str, str]) -> None:
    """`Refusal` for a checkpoint of another configuration than the run's config.json says."""
    stored = _stored(run_id)
    if metadata.get("config_digest") not in (None, json_digest(identity(stored))):
        raise Refusal(
            f"config.json of run {run_id[:12]} with its {path}, which was trained with other parameters or data",
            "the config.json that the run was trained with",
            "restore both from a copy of the run; without one, make the run again",
        )


def load_weights(model: nn.Module, run_id: str, epoch: int) -> dict[str, Tensor]:
    """Give a model the weights of a checkpoint, and return them; `Refusal` where they are not this model's."""
    tensors = weights(run_id, epoch)
    with artifacts.reading_of(run_id, _path(run_id, epoch)):
        load_learned(model, tensors)
    return tensors


def take_up(run_id: str, *, parent: TrackedRun | None = None) -> TrackedRun:
    """`reopen_run` for a training whose files are whole."""
    run = reopen_run(run_id, parent=parent)
    check_whole(run.run_id)
    return run


def check_whole(run_id: str) -> None:
    """`Refusal` where something that a training goes on from is damaged."""
    for path in ("config.json", "example_ids.json", INITIAL, STATE):
        if artifacts.has_artifact(run_id, path):
            artifacts.read(run_id, path)
    unsent(run_id)
    kept = epochs(run_id)
    for epoch in {*kept[:1], *kept[-1:]}:
        check_checkpoint(run_id, epoch)


def _stored(run_id: str) -> dict[str, Any]:
    """The config.json of a training; `Refusal` where it does not say all that a workload is rebuilt from."""
    stored: dict[str, Any] = artifacts.get_json(run_id, "config.json")
    with artifacts.reading_of(run_id, "config.json"):
        check_stored(stored)
    return stored


def example_ids(run_id: str) -> dict[str, list[int]]:
    """The examples of a training, by split; `Refusal` for a file that does not say them."""
    ids: dict[str, list[int]] = artifacts.get_json(run_id, "example_ids.json")
    with artifacts.reading_of(run_id, "example_ids.json"):
        check_ids(ids, _stored(run_id)["data"])
    return ids


def load_workload(run_id: str, *, device: str = "auto", data_dir: str | None = None) -> Workload:
    """Data, splits and model of a run, rebuilt from the run alone; see `load_checkpoint`."""
    stored, ids = _stored(run_id), example_ids(run_id)
    return rebuild(stored, ids, device=device, data_dir=data_dir, tensors=partial(_tensors, run_id))


def _tensors(run_id: str, path: str) -> dict[str, Tensor]:
    return artifacts.get_tensors(run_id, path)[0]


def load_checkpoint(
    run_id: str, epoch: int | str | None = None, *, device: str = "auto", data_dir: str | None = None
) -> Checkpoint:
    """Model and workload of a run at an epoch ("last", or "best" as its tag says), rebuilt from the run alone.

    `run_id` is an id, a unique prefix, or "latest"; or, without an epoch, a registered checkpoint:
    "models:/NAME@champion" or "models:/NAME/VERSION". `data_dir` says where the dataset's files are now, if they moved.
    Raises `Refusal` for an unknown run, epoch or model, and for data that are not those of the run.
    """
    if run_id.startswith(MODELS):
        run_id, epoch = registered(run_id, epoch)
    run = find_run(run_id)
    found, number = run.info.run_id, _number(run, epoch)
    _path(found, number)  # an unknown epoch is refused before any data are read
    workload = load_workload(found, device=device, data_dir=data_dir)
    model = workload.model()
    load_weights(model, found, number)
    return Checkpoint(model, workload)


def save_picture(run: TrackedRun | Run, figure: Any, name: str, *, also_pdf: bool = True) -> None:
    """A matplotlib figure as plots/<name>.png and .pdf; not drawn in a thrifty run."""
    if isinstance(run, TrackedRun) and run.thrifty:
        return
    info = run.info if isinstance(run, TrackedRun) else run
    mask_texts(figure)
    for kind in KINDS if also_pdf else ("png",):
        artifacts.put(info, f"plots/{name}.{kind}", partial(write_picture, figure))
