"""What every run says of itself: the content of its config.json, and the datasets that MLflow shows."""

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
    """Content of any `config.json`: who made it, and what else is known."""
    return {"entrypoint": entrypoint, "nfa_version": __version__, **content}


def write_config(run: TrackedRun, content: Mapping[str, Any]) -> None:
    """The run's `config.json`; nothing else writes one."""
    tracking.put_json(run.info, "config.json", content)


def training_config(
    entrypoint: str, workload: str, parameters: type[Any], train: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any]:
    """Content of the `config.json` of what trains: enough to rebuild the workload anywhere.

    `train` are values of the `parameters`, a dataclass of options; `data` says what the data were.
    """
    places = {
        item.name: _place(item, train[item.name]) for item in dataclasses.fields(parameters) if item.name in train
    }
    content = {"workload": workload, "train": {**train, **places}, "data": dict(data), "environment": environment()}
    return run_config(entrypoint, content)


def _place(item: "dataclasses.Field[Any]", value: Any) -> Any:
    """A folder or file as found from anywhere; the name of a data set or model, and everything else, stays."""
    if not item.metadata["path"] or not value or value in item.metadata["path_unless"]:
        return value
    place = typed_folder(value)
    there = {"folder": True, "file": place.is_file(), "file or folder": place.exists()}
    return str(place.resolve()) if there[item.metadata["path"]] else value


def data_inputs(stored: Mapping[str, Any], example_ids: Mapping[str, Sequence[int]]) -> list[DataInput]:
    """The run's datasets for MLflow, which keeps one input a digest: each split has its own."""
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
    """What bitwise repetition depends on beside the configuration."""
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
