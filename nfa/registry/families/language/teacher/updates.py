"""Weight updates by fine-tuning, read one module at a time, from stored runs or from two models."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from nfa.errors import Refusal
from nfa.maths.low_rank import FactorPair, LowRank
from nfa.options import Auto
from nfa.registry import stored_runs, tracking
from nfa.registry.families.language.adapters import PREFIX
from nfa.registry.families.language.base.models import find_base, weight_of
from nfa.registry.families.language.family import LanguageModels
from nfa.registry.families.language.target_modules import Target, target_modules
from nfa.registry.families.language.teacher.compression import Update
from nfa.registry.families.language.teacher.synthesis import teacher_update
from nfa.registry.families.language.tensor_files import Shape, adapter_shapes, check_names, matrices_in, tensors_of
from nfa.registry.tracking.sources import find_sources

Run = Any  # an MLflow Run; only nfa.registry.tracking knows the class


@dataclass(frozen=True)
class UpdateSource:
    """Updates ΔW [o i] by module, each computed when it is read. `columns` counts the columns of B if ΔW = B A.

    `label` names the run or model that they come from; `what` says what was trained on what, for titles of figures.
    """

    label: str
    what: str
    base_name: str
    base_digest: str
    shapes: Mapping[str, Shape]
    read: Callable[[str], Update]
    run: Run | None = None
    checkpoint: int | None = None
    columns: int | None = None
    adapter_rank: int | None = None
    circular: bool = False

    @property
    def run_id(self) -> str:
        """The run that the updates come from; empty if it is not a run."""
        return self.run.info.run_id if self.run else ""

    def largest_rank(self) -> tuple[int, str]:
        """Return the largest rank that every module's update can have, and the module that limits it."""
        ranks = {module: min(*shape, self.columns or min(shape)) for module, shape in self.shapes.items()}
        module = min(ranks, key=lambda name: ranks[name])
        return ranks[module], module

    def update(self, module: str) -> Update:
        """Return ΔW of a module; raise `Refusal` if it is not finite."""
        found = self.read(module)
        if not all(bool(part.isfinite().all()) for part in (found if isinstance(found, FactorPair) else [found])):
            remedy = "train with a smaller lr, or use an earlier checkpoint"
            raise Refusal(f"the update of {module} in {self.label} (not finite)", "finite weights", remedy)
        return found


def adapter_of(run_id: str, checkpoint: int | Auto) -> UpdateSource:
    """Return the adapter of a run of train_lora; raise `Refusal` for any other run."""
    run = _one_run(run_id)
    config = _trained(run)
    if config["train"]["init"] == "full":
        got, allowed = f"run_id={run_id} (a full fine-tuning)", "a run of train_lora with an adapter"
        raise Refusal(got, allowed, f"use lora_svd instead: run_id={run.info.run_id}; or train with another init")
    return _of_adapter(run, config, checkpoint)


def updates_of(run_id: str, checkpoint: int | Auto, base_model: str = "") -> UpdateSource:
    """Return updates of a run of train_lora or synthesize_teacher; `base_model` is where a full run's base is now."""
    run = _one_run(run_id)
    if run.data.tags.get("nfa.entrypoint") == "synthesize_teacher":
        if checkpoint != "auto":
            got = f"checkpoint={checkpoint} with run_id={run_id} (a synthesised teacher)"
            raise Refusal(got, "a checkpoint of a training", "leave checkpoint out")
        return _of_synthesis(run)
    config = _trained(run)
    if config["train"]["init"] == "full":
        return _of_full(run, config, checkpoint, base_model)
    return _of_adapter(run, config, checkpoint)


def updates_between(teacher: str, base_model: str, targets: Sequence[str]) -> UpdateSource:
    """W_teacher − W_base of every module that a target is the end of; `Refusal` for models that differ in them."""
    base, tuned = find_base(base_model), find_base(teacher)
    modules, others = (target_modules(one, tuple(targets)) for one in (base, tuned))
    check_names(f"{tuned.name} as a teacher of {base.name}", set(others), set(modules))
    for name, target in modules.items():
        if others[name] != target:
            got = f"{name} of {tuned.name} with shape {list(others[name].shape)}"
            allowed = f"shape {list(target.shape)}, as in {base.name}"
            raise Refusal(got, allowed, "set base_model to the model that it was fine-tuned from")

    def read(module: str) -> Tensor:
        return _oriented(weight_of(tuned, f"{module}.weight") - weight_of(base, f"{module}.weight"), modules[module])

    shapes = {name: one.shape for name, one in modules.items()}
    what = f"{_last(tuned.name)} without {_last(base.name)}"
    return UpdateSource(tuned.name, what, base.name, base.digest, shapes, read)


# ---- which run


def _one_run(run_id: str) -> Run:
    run = tracking.find_run(run_id)
    if run.data.tags.get("nfa.entrypoint") == "synthesize_teacher":
        return run
    found = find_sources(run_id)
    if len(found) > 1:
        names = ", ".join(f"{one.info.run_id[:12]} {one.info.run_name}" for one in found)
        raise Refusal(f"run_id={run_id} (it stands for several runs)", f"one run: {names}", "choose one of these ids")
    return found[0]


def _trained(run: Run) -> Any:
    config = tracking.config(run.info.run_id)
    if config.get("entrypoint") != "train_lora":
        made = f"{run.info.run_id[:12]}, made by {config.get('entrypoint', 'another program')}"
        raise Refusal(f"run {made}", "a run of train_lora or synthesize_teacher", "mlflow run . -e train_lora")
    return config


def _checkpoint(run: Run, checkpoint: int | Auto) -> tuple[int, Path]:
    run_id = run.info.run_id
    existing = tracking.epochs(run_id)
    number = existing[-1] if checkpoint == "auto" else checkpoint
    if number not in existing:
        allowed = f"its checkpoints: {', '.join(map(str, existing))}"
        raise Refusal(f"checkpoint={checkpoint} of run {run_id[:12]}", allowed, "choose one of them")
    return number, stored_runs.whole_checkpoint(run_id, number)


# ---- the kinds


def _of_adapter(run: Run, config: Any, checkpoint: int | Auto) -> UpdateSource:
    """Return ΔW = s (B A − B₀ A₀) = s [B − B₀, B₀] [A; A − A₀], which is exactly zero before the first step."""
    run_id, rank = run.info.run_id, int(config["train"]["rank"])
    number, file = _checkpoint(run, checkpoint)
    initial = tracking.whole(run_id, "initial_adapter.safetensors").file if config["residual"] else None
    shapes = adapter_shapes(file)
    check_names(f"run {run_id[:12]}", set(shapes), set(config["modules"]))

    def read(module: str) -> FactorPair:
        a, b = tensors_of(file, *(f"{PREFIX}{module}.lora_{part}.default.weight" for part in "AB"))
        a, b = a.double(), b.double()
        if initial:
            first_a, first_b = tensors_of(initial, *(f"{module}.lora_{part}.weight" for part in "AB"))
            a, b = torch.cat([a, a - first_a]), torch.cat([b - first_b, first_b.double()], dim=1)
        return FactorPair(config["train"]["alpha"] / rank * b, a)

    return UpdateSource(
        _label(run, number),
        _trained_on(config, number),
        config["base"]["name"],
        config["base"]["digest"],
        {module: shapes[module] for module in config["modules"]},
        read,
        run=run,
        checkpoint=number,
        columns=rank * (2 if initial else 1),
        adapter_rank=rank,
    )


def _of_full(run: Run, config: Any, checkpoint: int | Auto, base_model: str) -> UpdateSource:
    number, file = _checkpoint(run, checkpoint)
    base = find_base(base_model or config["base"]["name"])
    if base.digest != config["base"]["digest"]:
        got = f"{base.name} with digest {base.digest[:12]} as the base of run {run.info.run_id[:12]}"
        allowed = f"{config['base']['name']} with digest {config['base']['digest'][:12]}"
        raise Refusal(got, allowed, "base_model=FOLDER, where the run's base is now")
    stored = {name.removesuffix(".weight") for name in matrices_in(file)}
    check_names(f"run {run.info.run_id[:12]}", stored, set(config["modules"]))
    modules = target_modules(base, tuple(config["modules"]))

    def read(module: str) -> Tensor:
        (weight,) = tensors_of(file, f"{module}.weight")
        return _oriented(weight.float() - weight_of(base, f"{module}.weight"), modules[module])

    shapes = {name: modules[name].shape for name in config["modules"]}
    label, what = _label(run, number), _trained_on(config, number)
    return UpdateSource(label, what, base.name, base.digest, shapes, read, run=run, checkpoint=number)


def _of_synthesis(run: Run) -> UpdateSource:
    config = tracking.config(run.info.run_id)
    file = tracking.whole(run.info.run_id, config["teacher"]).file
    with tracking.reading_of(run.info.run_id, config["teacher"]), safe_open(file, "pt") as content:
        stated = content.metadata()
        modules = json.loads(stated["sigmas"])
        triplets = {name: (content.get_slice(f"{name}.U"), content.get_slice(f"{name}.Vh")) for name in modules}
        shapes = {name: (u.get_shape()[0], vh.get_shape()[1]) for name, (u, vh) in triplets.items()}
        columns = min(u.get_shape()[1] for u, _ in triplets.values())

    def read(module: str) -> Update:
        matrix = LowRank(*tensors_of(file, *(f"{module}.{part}" for part in ("U", "S", "Vh"))))
        return teacher_update(matrix, modules[module], int(stated["noise_seed"]), module)

    noiseless = not any(modules.values())
    return UpdateSource(
        f"{run.info.run_name} ({run.info.run_id[:12]})",
        f"teacher made from {config['source'].get('what') or _last(stated['base_name'])}",
        stated["base_name"],
        stated["base_digest"],
        shapes,
        read,
        run=run,
        columns=columns if noiseless else None,
        circular=True,
    )


def _label(run: Run, number: int) -> str:
    return f"{run.info.run_name} ({run.info.run_id[:12]}), step {number}"


def _trained_on(config: Mapping[str, Any], number: int) -> str:
    return f"{LanguageModels().title(config)}, step {number}"


def _last(name: str) -> str:
    """Return the name of a model without its folder."""
    return name.rstrip("/").rpartition("/")[2]


# ---- weights


def _oriented(update: Tensor, target: Target) -> Tensor:
    return update.T if target.transposed else update
