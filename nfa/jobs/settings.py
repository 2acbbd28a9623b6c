"""What a training run stores about itself, and how a stored run is taken up again."""

import dataclasses
import os
import platform
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch

from nfa import __version__
from nfa.config import TrainConfig
from nfa.console import stage
from nfa.data import catalog
from nfa.data.images import ImageData
from nfa.errors import Refusal

BYTES_A_WEIGHT = 20  # float32, five times: the weight, where it started, its gradient, and two of the optimizer's


def stored_config(config: TrainConfig, data: ImageData) -> dict[str, Any]:
    """Content of `config.json`: enough to rebuild the workload anywhere."""
    place = str(catalog.typed_folder(config.data_dir).resolve()) if config.data_dir else ""
    return {
        "entrypoint": "train",
        "workload": "mlp",
        "nfa_version": __version__,
        "train": {**dataclasses.asdict(config), "data_dir": place, "resume": ""},
        "data": {
            "name": data.name,
            "digest": data.digest(),
            "published_train": len(data.train_labels),
            "published_test": len(data.test_labels),
            "features": data.features,
            "classes": data.classes,
        },
        "environment": environment(),
    }


def check_memory(config: TrainConfig, data: ImageData) -> None:
    """`Refusal` for a network whose weights, start, gradients and optimizer state this machine cannot hold."""
    sizes = [data.features, *[config.width] * config.depth, data.classes]
    needed = BYTES_A_WEIGHT * sum(inputs * outputs for inputs, outputs in pairwise(sizes))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise Refusal(
            f"width={config.width} depth={config.depth} (about {needed / 2**30:,.0f} GB)",
            f"a network that fits into {memory / 2**30:.0f} GB of memory",
            "a smaller width or depth",
        )


def environment() -> dict[str, Any]:
    """What bitwise repetition depends on beside the configuration."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }


def identity(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `config.json` that decides the weights; a checkpoint carries its digest."""
    free = {item.name for item in dataclasses.fields(TrainConfig) if item.metadata["free_on_resume"]}
    train = {name: value for name, value in stored["train"].items() if name not in free}
    return {"workload": stored["workload"], "train": train, "data": stored["data"]}


def config_to_resume(asked: TrainConfig, stored: Mapping[str, Any]) -> TrainConfig:
    """The stored configuration with what may change taken from `asked`; `Refusal` if anything else was asked for.

    `mlflow run` passes every default, so a value equal to the default counts as not asked for.
    """
    before = TrainConfig(**stored["train"])
    changes, differing = {}, []
    for item in dataclasses.fields(TrainConfig):
        wanted, had = getattr(asked, item.name), getattr(before, item.name)
        if wanted in (item.default, had):
            continue
        if item.metadata["free_on_resume"]:
            changes[item.name] = wanted
        else:
            differing.append(f"{item.name}={wanted} (the run has {had})")
    if differing:
        remedy = "leave these out to continue the run, or start a new run without resume"
        raise Refusal(f"resume with {', '.join(differing)}", "the run's own parameters", remedy)
    now = environment()
    for name, value in stored["environment"].items():
        if now[name] != value:
            stage("notice", f"{name} is {now[name]}, was {value}: bitwise equal weights are not promised")
    return dataclasses.replace(before, **changes)
