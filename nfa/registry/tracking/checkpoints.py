"""Checkpoints of a run as safetensors artifacts."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Run

from nfa import __version__
from nfa.checkpoint_files import ANSWERS, NAME, path_of
from nfa.errors import Refusal
from nfa.plain_text import apart
from nfa.registry.signals import shielded
from nfa.registry.tracking import artifacts
from nfa.registry.tracking.finding_runs import children, find_run
from nfa.registry.tracking.runs import TrackedRun
from nfa.registry.tracking.store import client

if TYPE_CHECKING:
    import torch.nn as nn

BEST, WORDS = "nfa.best_epoch", ("last", "best")
SHOWN = 5  # most runs named in a message
ALLOWED = str.maketrans({".": "·", **dict.fromkeys("/:%\"'", "-")})  # in place of what MLflow refuses in a model's name


def save_checkpoint(
    run: TrackedRun,
    model: "nn.Module",
    *,
    epoch: int | None,
    step: int | None,
    config_digest: str,
    answers: Sequence[float] = (),
    frozen: Collection[str] | None = None,
) -> str:
    """Store the learned tensors of a model, and return the id of the LoggedModel that represents them in MLflow.

    Storing the same checkpoint again (after a crash) gives the same artifact and the same LoggedModel.

    Args:
        run: The run that gets the checkpoint.
        model: The model whose learned tensors are stored.
        epoch: Names the checkpoint; None = named by its `step`.
        step: Optimizer step; None = unknown.
        config_digest: Digest of the configuration that determines the weights.
        answers: The model's outputs on a few examples, stored with the weights.
        frozen: Names of parameters that are not stored.
    """
    from nfa.learned import learned_state  # with PyTorch

    known = {"epoch": epoch, "step": step, "config_digest": config_digest, "nfa_version": __version__}
    metadata = {name: str(value) for name, value in known.items() if value is not None}
    unit, number = ("epoch", epoch) if epoch is not None else ("step", step)
    assert number is not None
    run.check_held()
    with_answers = {**metadata, ANSWERS: json.dumps(list(answers))} if answers else metadata
    artifacts.put_tensors(run.info, path_of(number, unit), learned_state(model, frozen), with_answers)
    with shielded():
        return _logged_model(run, unit, number, metadata)


def _logged_model(run: TrackedRun, unit: str, number: int, metadata: Mapping[str, str]) -> str:
    path = path_of(number, unit)
    known = _known_models(run) if run.continued else {}
    model = known.get(path) or client().create_logged_model(
        run.info.info.experiment_id,
        name=model_name(run.info.info.run_name, unit, number),
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


def model_name(run_name: str, unit: str, number: int) -> str:
    """Return the name of a checkpoint's LoggedModel, in which MLflow allows no dots, slashes, colons and others.

    >>> model_name("digits mlp 64×2 sgd lr 0.1 seed 1717", "epoch", 12)
    'epoch 12, digits mlp 64×2 sgd lr 0·1 seed 1717'
    """
    return f"{unit} {number}, {run_name}".translate(ALLOWED)  # the UI cuts the end off


def _known_models(run: TrackedRun) -> dict[str, Any]:
    models = client().search_logged_models([run.info.info.experiment_id], f"source_run_id = '{run.run_id}'")
    return {model.tags["nfa.checkpoint"]: model for model in models if "nfa.checkpoint" in model.tags}


def _is_output(run: TrackedRun, model_id: str) -> bool:
    outputs = client().get_run(run.run_id).outputs
    return any(output.model_id == model_id for output in (outputs.model_outputs if outputs else []))


def epochs(run_id: str) -> list[int]:
    """Return the epochs, or optimizer steps, of a run's checkpoints."""
    return sorted(_paths(run_id))


def unit(run_id: str) -> str:
    """Return the unit of a run's checkpoints: "epoch" or "step"."""
    path = next(iter(_paths(run_id).values()), "")
    return "step" if Path(path).name.startswith("step_") else "epoch"


def _paths(run_id: str) -> dict[int, str]:
    matches = (NAME.fullmatch(path) for path in artifacts.names(run_id, "checkpoints"))
    return {int(match[2]): match[0] for match in matches if match}


def stored_path(run_id: str, epoch: int) -> str:
    paths = _paths(run_id)
    if not paths:
        raise _without_checkpoints(find_run(run_id), epoch)
    if epoch not in paths:
        available = ", ".join(map(str, sorted(paths)))
        got = f"{unit(run_id)} {epoch} of run {run_id[:12]}"
        raise Refusal(got, f"its checkpoints: {available}", "choose one of them")
    return paths[epoch]


def _without_checkpoints(run: Run, epoch: int | str | None) -> Refusal:
    """Return a refusal that names the child runs with checkpoints, and what to type."""
    got, best = f"run {run.info.run_id[:12]} (it has no checkpoints)", run.data.tags.get("nfa.best_run_id")
    owners = sorted(owners_below(run), key=lambda owner: owner.info.run_id != best)  # a study's best run first
    if not owners:
        return Refusal(got, "a training run, or a parent of training runs", "train first")
    names = apart([owner.info.run_name for owner in owners])
    shown = [f"{name} {owner.info.run_id[:12]}" for name, owner in zip(names, owners, strict=True)]
    more = f" and {len(owners) - SHOWN} more" if len(owners) > SHOWN else ""
    known = epoch if epoch in (*WORDS, *epochs(owners[0].info.run_id)) else "last"
    typed = f"load_checkpoint({owners[0].info.run_id[:12]!r}, epoch={known!r})"
    return Refusal(got, f"one of its child runs: {', '.join(shown[:SHOWN])}{more}", typed)


def owners_below(run: Run) -> Iterator[Run]:
    """Yield the runs with checkpoints below a run; what lies below these are their analyses."""
    for child in children(run.info.run_id, run.info.experiment_id):
        if epochs(child.info.run_id):
            yield child
        else:
            yield from owners_below(child)


def chosen_epoch(run: Run, epoch: int | str | None) -> int:
    """Resolve "last" and "best" to an epoch; raise `Refusal` if there is no checkpoint, no epoch, or no best epoch."""
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
    why += f" (it has no tag {BEST}, because it has not finished or logged no val/loss)" if epoch == "best" else ""
    allowed, short = f"one of {existing}, 'last', or 'best' for a finished run", run.info.run_id[:12]
    raise Refusal(f"run {short} {why}", allowed, f"nfa.load_checkpoint({short!r}, epoch='last')")
