"""A workload from what a run stored."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nfa.config import TrainConfig
from nfa.data import catalog, images
from nfa.errors import Refusal
from nfa.workloads.mlp import MLPClassifier

Rebuilt = MLPClassifier


def choose_device(name: str) -> torch.device:
    """`auto` = CUDA when it is there, else the CPU; `Refusal` for a device that is not."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise Refusal(
            f"device={name!r} ({reason})", "auto, cpu, cuda, cuda:N, mps where present", "device=auto"
        ) from None
    return device


def rebuild(
    config: Mapping[str, Any],
    example_ids: Mapping[str, Sequence[int]],
    *,
    device: str = "auto",
    data_dir: str | None = None,
) -> Rebuilt:
    """The workload of a run's `config.json` on the run's own examples; `Refusal` where the data are not the same."""
    train = TrainConfig(**config["train"])
    place = train.data_dir if data_dir is None else data_dir
    data = images.load(train.dataset, catalog.locate(train.dataset, place))
    expected = config["data"]["digest"]
    if data.digest() != expected:
        raise Refusal(
            f"{train.dataset} with digest {data.digest()[:12]}",
            f"digest {expected[:12]}",
            "use the data the run was trained on",
        )
    return MLPClassifier(train, data, example_ids, choose_device(device))
