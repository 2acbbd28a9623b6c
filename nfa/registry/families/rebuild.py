"""A workload from what a run stored."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from nfa.errors import Refusal
from nfa.registry.datasets import catalog, images
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.eeg.data import EEGData
from nfa.registry.families.eeg.data import load as load_recordings
from nfa.registry.families.eeg.simulated import Simulation, simulated_folder
from nfa.registry.families.eeg.workload import EEGDecoder
from nfa.registry.families.language import questions
from nfa.registry.families.language.answer_tokens import encode
from nfa.registry.families.language.base.models import find_base, load_tokenizer
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.language.workload import LanguageModel
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.workload import Workload
from nfa.workloads.devices import choose_device

Tensors = Callable[[str], Mapping[str, Tensor]]
INITIAL = "initial_adapter.safetensors"
Ids = Mapping[str, Sequence[int]]


def rebuild(
    config: Mapping[str, Any],
    example_ids: Ids,
    *,
    device: str = "auto",
    data_dir: str | None = None,
    tensors: Tensors,
) -> Workload:
    """The workload of a run's `config.json` on the run's own examples; `Refusal` where the data are not the same.

    `tensors` gives those of a safetensors file of the run.
    """
    return WORKLOADS[config["workload"]](config, example_ids, device, data_dir, tensors)


def _classifier(
    config: Mapping[str, Any], example_ids: Ids, device: str, data_dir: str | None, _: Tensors
) -> MLPClassifier:
    train = TrainConfig(**config["train"])
    place = train.data_dir if data_dir is None else data_dir
    data = images.load(train.dataset, catalog.locate(train.dataset, place))
    check_same(train.dataset, data.digest(), config["data"]["digest"])
    return MLPClassifier(train, data, example_ids, choose_device(device))


def _decoder(config: Mapping[str, Any], example_ids: Ids, device: str, data_dir: str | None, _: Tensors) -> EEGDecoder:
    train = TrainEEGConfig(**config["train"])
    data = recordings(train, train.data_dir if data_dir is None else data_dir)
    check_same(data.name, data.digest(), config["data"]["digest"])
    return EEGDecoder(train, data, example_ids, choose_device(device))


def _language_model(
    config: Mapping[str, Any], example_ids: Ids, device: str, data_dir: str | None, tensors: Tensors
) -> LanguageModel:
    train = TrainLoraConfig(**config["train"])
    moved = {name: _moved(getattr(train, name), data_dir) for name in ("data", "val_data")}
    data = questions.load(moved["data"], moved["val_data"])
    check_same(data.name, data.digest(), config["data"]["digest"])
    base = find_base(train.base_model)
    check_same(f"base model {train.base_model}", base.digest, config["base"]["digest"])
    encoded = encode(data.pairs, load_tokenizer(base), train.max_length)
    initial = None if train.init == "full" else tensors(INITIAL)
    return LanguageModel(train, base, encoded, example_ids, choose_device(device), initial)


def _moved(path: str, data_dir: str | None) -> str:
    """Where a file of that name is in `data_dir`; names of data sets stay."""
    if not data_dir or not Path(path).suffix:
        return path
    return str(catalog.typed_folder(data_dir) / Path(path).name)


def recordings(config: TrainEEGConfig, data_dir: str) -> EEGData:
    """The recordings in `data_dir`, or simulated ones where that is empty."""
    load = partial(load_recordings, window=config.window, split=config.split, unseen=config.unseen)
    if data_dir:
        return load(catalog.typed_folder(data_dir))
    names = ("subjects", "stimuli", "seconds", "channels", "snr_db", "split")
    known = {name: getattr(config.resolved(), name) for name in names}
    return load(simulated_folder(Simulation(**known, seed=config.data_seed)), name="simulated")


def check_same(name: str, found: str, expected: str) -> None:
    """`Refusal` for data, or a base model, with another digest than the run's."""
    if found != expected:
        got, allowed = f"{name} with digest {found[:12]}", f"digest {expected[:12]}"
        raise Refusal(got, allowed, "use the data the run was trained on")


WORKLOADS: Mapping[str, Callable[[Mapping[str, Any], Ids, str, str | None, Tensors], Workload]] = {
    "mlp": _classifier,
    "eeg": _decoder,
    "lora": _language_model,
}
