"""What a training run stores about itself, and how a stored run is taken up again."""

import dataclasses
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from nfa import __version__
from nfa.console import stage
from nfa.errors import Refusal
from nfa.maths.bfloat16 import has_bfloat16_units
from nfa.registry import tracking
from nfa.registry.datasets import catalog
from nfa.registry.datasets.images import ImageData
from nfa.registry.entry_points import ENTRY_POINTS
from nfa.registry.families.eeg.config import AblateEEGConfig, TrainEEGConfig
from nfa.registry.families.eeg.data import SPLITS, EEGData
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.tracking import DataInput, TrackedRun
from nfa.registry.training.stored import made_again

NAMES = ("stdlib", "tiny", "smollm2")
PLACES: dict[str, Callable[[str, Path], bool]] = {  # parameters that may name a folder or a file, and when they do
    "data_dir": lambda text, _: bool(text),
    "data": lambda text, place: text not in NAMES and place.is_file(),
    "val_data": lambda text, place: text not in NAMES and place.is_file(),  # or a split of the hub's
    "base_model": lambda text, place: text not in NAMES and place.exists(),
}
RESUMABLE = ("train", "train_eeg", "train_lora")
Config = TypeVar("Config", TrainConfig, TrainEEGConfig, AblateEEGConfig, TrainLoraConfig)
SPACE_MARGIN = 32 * 2**20  # database rows, figures and reports


def stored_config(config: TrainConfig, data: ImageData) -> dict[str, Any]:
    """Content of the `config.json` of a training: enough to rebuild the workload anywhere."""
    return classifier_config("train", {**dataclasses.asdict(config), "resume": ""}, data)


def classifier_config(entrypoint: str, train: Mapping[str, Any], data: ImageData) -> dict[str, Any]:
    """Content of the `config.json` of a classifier's run; `train` holds the fields of `TrainConfig` that are known."""
    described = {
        "name": data.name,
        "digest": data.digest(),
        "published_train": len(data.train_labels),
        "published_test": len(data.test_labels),
        "features": data.features,
        "classes": data.classes,
    }
    return run_config(entrypoint, "mlp", train, described)


def decoder_config(config: TrainEEGConfig, data: EEGData) -> dict[str, Any]:
    """Content of the `config.json` of a training on EEG."""
    described = {
        "name": data.name,
        "digest": data.digest(),
        "channels": data.channels,
        "subjects": list(data.subjects),
        "parts": {split: len(data.of(split)) for split in SPLITS},
        "held_out": {split: dict(data.held_out(split)) for split in SPLITS[1:]},
        "unseen_subjects": list(data.unseen_subjects()),
        "normalised_by": data.normalised_by(),
    }
    train = {**dataclasses.asdict(config), "split": data.split, "resume": ""}
    return run_config("train_eeg", "eeg", train, described)


def run_config(entrypoint: str, workload: str, train: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a `config.json`: parameters, what the data were, and what bitwise repetition depends on."""
    places = {name: _place(train[name], known) for name, known in PLACES.items() if name in train}
    return {
        "entrypoint": entrypoint,
        "workload": workload,
        "nfa_version": __version__,
        "train": {**train, **places},
        "data": dict(data),
        "environment": environment(),
    }


def _place(text: str, known: Callable[[str, Path], bool]) -> str:
    """A folder or file as found from anywhere; the name of a data set or model stays."""
    place = catalog.typed_folder(text)
    return str(place.resolve()) if known(text, place) else text


def data_inputs(stored: Mapping[str, Any], example_ids: Mapping[str, Sequence[int]]) -> list[DataInput]:
    """The run's datasets for MLflow, which keeps one input a digest: each split has its own."""
    name, data = stored["data"]["name"], stored["data"]["digest"]
    digests = {
        split: tracking.digest({"data": data, "ids": list(example_ids[split])})
        for split in ("train", "val", "test")
        if example_ids[split]
    }
    known = "simulated" if name == "simulated" else f"{name} (published files)"
    source = stored["train"].get("data_dir") or stored["train"].get("data") or known
    return [DataInput(name, digest, source, split) for split, digest in digests.items()]


def check_precision(precision: str, device: torch.device) -> None:
    """`Refusal` for bfloat16 where it would only be slow."""
    if precision == "bfloat16" and not has_bfloat16_units(device):
        raise Refusal(f"precision=bfloat16 on {device}", "a device with bfloat16 units", "precision=float32")


def environment() -> dict[str, Any]:
    """What bitwise repetition depends on beside the configuration."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }


def taken_up(asked: Config) -> tuple[TrackedRun, Config]:
    """The run `asked.resume`, reopened, and the configuration it goes on with.

    `Refusal` where something else was asked for, and where a file that it goes on from is damaged.
    """
    run = tracking.reopen_run(asked.resume)
    stored = tracking.config(run.run_id)
    with tracking.reading_of(run.run_id, "config.json"):
        config = config_to_resume(asked, stored)
    tracking.check_whole(run.run_id)
    return run, config


def config_to_resume(asked: Config, stored: Mapping[str, Any]) -> Config:
    """The stored configuration with what may change taken from `asked`; `Refusal` if anything else was asked for.

    `mlflow run` passes every default, so a value equal to the default counts as not asked for.
    """
    entrypoint = {config: name for name, config in ENTRY_POINTS.items()}[type(asked)]
    if stored["entrypoint"] != entrypoint:
        made_by = stored["entrypoint"]
        remedy = f"start {made_by} again" if made_by not in RESUMABLE else f"-e {made_by} -P resume={asked.resume}"
        raise Refusal(f"resume={asked.resume} (made by {made_by})", f"a run made by {entrypoint}", remedy)
    config = changed_by_user(asked, made_again(type(asked), stored["train"]))
    now = environment()
    for name, value in stored["environment"].items():
        if now[name] != value:
            stage("notice", f"{name} is {now[name]}, was {value}: bitwise equal weights are not promised")
    return config


def changed_by_user(asked: Config, before: Config) -> Config:
    """`before` with what may change taken from `asked`; `Refusal` where `asked` says anything else that is not so."""
    changes, differing = {}, []
    for item in dataclasses.fields(asked):
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
    return dataclasses.replace(before, **changes)
