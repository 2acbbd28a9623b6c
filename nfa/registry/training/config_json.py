"""The content of every run's config.json, and the datasets that MLflow shows."""

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from nfa import __version__
from nfa.content import json_digest
from nfa.registry import tracking
from nfa.registry.folders import typed_folder
from nfa.registry.tracking import DataInput, TrackedRun

SPACE_MARGIN = 32 * 2**20  # database rows, figures and reports


def run_config(entrypoint: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a config.json: the entry point, the version, and `content`."""
    return {"entrypoint": entrypoint, "nfa_version": __version__, **content}


def write_config(run: TrackedRun, content: Mapping[str, Any]) -> None:
    """Write the run's config.json; no other function does."""
    tracking.put_json(run.info, "config.json", content)


def training_config(
    entrypoint: str, workload: str, parameters: type[Any], train: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of a training's config.json, from which its workload can be rebuilt anywhere.

    `train` holds values of `parameters`, a dataclass of options; `data` describes the data.
    """
    places = {
        item.name: _place(item, train[item.name]) for item in dataclasses.fields(parameters) if item.name in train
    }
    content = {"workload": workload, "train": {**train, **places}, "data": dict(data), "environment": environment()}
    return run_config(entrypoint, content)


def _place(item: "dataclasses.Field[Any]", value: Any) -> Any:
    """Make the path of a folder or file absolute; names of data sets and models, and other values, are unchanged."""
    if not item.metadata["path"] or not value or value in item.metadata["path_unless"]:
        return value
    place = typed_folder(value)
    there = {"folder": True, "file": place.is_file(), "file or folder": place.exists()}
    return str(place.resolve()) if there[item.metadata["path"]] else value


def data_inputs(stored: Mapping[str, Any], example_ids: Mapping[str, Sequence[int]]) -> list[DataInput]:
    """Return the run's datasets for MLflow, with a digest per split, because MLflow keeps one input per digest."""
    name, data = stored["data"]["name"], stored["data"]["digest"]
    digests = {
        split: json_digest({"data": data, "ids": list(example_ids[split])})
        for split in ("train", "val", "test")
        if example_ids[split]
    }
    known = "simulated" if name == "simulated" else f"{name} (published files)"
    source = stored["train"].get("data_dir") or stored["train"].get("data") or known
    return [DataInput(name, digest, source, split) for split, digest in digests.items()]


def environment() -> dict[str, Any]:
    """Return what bitwise reproduction depends on besides the configuration."""
    import torch

    from nfa.maths.bfloat16 import has_bfloat16_units

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "bfloat16_units": has_bfloat16_units(torch.device("cpu")),  # decide in which precision Muon multiplies
    }
