"""Checkpoints of a run as safetensors artifacts, and the state from which training goes on."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from safetensors.torch import load_file, save_file
from torch import Tensor

from nfa import __version__
from nfa.ends import shielded
from nfa.errors import Refusal
from nfa.tracking import artifacts
from nfa.tracking.runs import TrackedRun
from nfa.tracking.store import client, find_run
from nfa.workloads.rebuild import Rebuilt, rebuild

STATE = "state/latest.pt"
_NAME = re.compile(r"checkpoints/epoch_(\d+)\.safetensors")


class Checkpoint(NamedTuple):
    """A model as it was at an epoch, and the workload it was trained on."""

    model: nn.Module
    workload: Rebuilt


def path_of(epoch: int) -> str:
    """Artifact path of an epoch's checkpoint."""
    return f"checkpoints/epoch_{epoch:04d}.safetensors"


def digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration in canonical JSON."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def save_checkpoint(run: TrackedRun, model: nn.Module, *, epoch: int, step: int | None, config_digest: str) -> str:
    """Store the weights of an epoch and return the id of the LoggedModel that stands for them in MLflow's model view.

    Doing it again (after a crash) gives the same artifact and the same LoggedModel. A `step` of None is not known.
    """
    known = {"epoch": epoch, "step": step, "config_digest": config_digest, "nfa_version": __version__}
    metadata = {name: str(value) for name, value in known.items() if value is not None}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    artifacts.put(run.info, path_of(epoch), lambda file: save_file(tensors, file, metadata))
    with shielded():
        return _logged_model(run, epoch, metadata)


def _logged_model(run: TrackedRun, epoch: int, metadata: Mapping[str, str]) -> str:
    known = _known_models(run) if run.continued else {}
    model = known.get(epoch) or client().create_logged_model(
        run.info.info.experiment_id,
        name=f"epoch_{epoch:04d}",
        source_run_id=run.run_id,
        tags={"nfa.epoch": str(epoch), "nfa.checkpoint": path_of(epoch)},
        params=dict(metadata),
        model_type="checkpoint",
    )
    if epoch not in known or not _is_output(run, model.model_id):
        client().log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=epoch)])
    if model.status != LoggedModelStatus.READY:
        client().finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return str(model.model_id)


def _known_models(run: TrackedRun) -> dict[int, Any]:
    models = client().search_logged_models([run.info.info.experiment_id], f"source_run_id = '{run.run_id}'")
    return {int(model.tags["nfa.epoch"]): model for model in models}


def _is_output(run: TrackedRun, model_id: str) -> bool:
    outputs = client().get_run(run.run_id).outputs
    return any(output.model_id == model_id for output in (outputs.model_outputs if outputs else []))


def save_state(run: TrackedRun, state: Mapping[str, Any]) -> None:
    """Replace the run's training state."""
    artifacts.put(run.info, STATE, lambda file: torch.save(dict(state), file))


def load_state(run: TrackedRun) -> dict[str, Any] | None:
    """The run's training state; None if it ended before its first checkpoint."""
    if not artifacts.has_artifact(run.run_id, STATE):
        return None
    state: dict[str, Any] = torch.load(artifacts.get(run.run_id, STATE), weights_only=True, map_location="cpu")
    return state


def epochs(run_id: str) -> list[int]:
    """Epochs that a run has checkpoints of."""
    matches = (_NAME.fullmatch(path) for path in artifacts.names(run_id, "checkpoints"))
    return sorted(int(match[1]) for match in matches if match)


def weights(run_id: str, epoch: int) -> dict[str, Tensor]:
    """Weights of a checkpoint by parameter name, on the CPU."""
    try:
        return load_file(artifacts.get(run_id, path_of(epoch)))
    except (OSError, MlflowException):
        available = ", ".join(map(str, epochs(run_id))) or "none"
        raise Refusal(
            f"epoch {epoch} of run {run_id[:12]}", f"its checkpoints: {available}", "choose one of them"
        ) from None


def load_workload(run_id: str, *, device: str = "auto", data_dir: str | None = None) -> Rebuilt:
    """Data, splits and model of a run, rebuilt from the run alone; see `load_checkpoint`."""
    ids = artifacts.get_json(run_id, "example_ids.json")
    return rebuild(artifacts.get_json(run_id, "config.json"), ids, device=device, data_dir=data_dir)


def load_checkpoint(run_id: str, epoch: int, *, device: str = "auto", data_dir: str | None = None) -> Checkpoint:
    """Model and workload of a run at an epoch, rebuilt from the run alone.

    `run_id` is an id, a unique prefix, or "latest". `data_dir` says where the dataset's files are now, if they moved.
    Raises `Refusal` for an unknown run or epoch, and for data that are not those of the run.
    """
    found = find_run(run_id).info.run_id
    tensors = weights(found, epoch)
    workload = load_workload(found, device=device, data_dir=data_dir)
    model = workload.model()
    model.load_state_dict(tensors)
    return Checkpoint(model, workload)


def save_picture(run: TrackedRun | Run, figure: Any, name: str, *, also_pdf: bool = True) -> None:
    """A matplotlib figure as plots/<name>.png and .pdf."""
    info = run.info if isinstance(run, TrackedRun) else run
    for kind in ("png", "pdf") if also_pdf else ("png",):
        artifacts.put(info, f"plots/{name}.{kind}", partial(_draw, figure, kind))
        figure.set_layout_engine("none")  # laid out once, so both files look the same


def _draw(figure: Any, kind: str, file: Path) -> None:
    # No dates inside, so that the same numbers give the same file.
    dateless = {"CreationDate": None} if kind == "pdf" else {"Software": None}
    figure.savefig(file, format=kind, dpi=200, metadata=dateless)
