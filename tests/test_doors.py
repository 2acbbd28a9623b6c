"""What parameters and the file system decide is refused by every entry point before anything heavy is loaded."""

import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from nfa.errors import Refusal
from nfa.registry import cli, doors, machine
from nfa.registry.entry_points import entry_points
from nfa.registry.families.language import family
from nfa.registry.families.language.base.known_layers import known_layers
from nfa.registry.families.language.base.models import find_base
from nfa.registry.families.language.config import TARGETS, TrainLoraConfig
from nfa.registry.families.language.target_modules import target_modules
from nfa.registry.sweeps.config import TuneConfig
from tests.support import llamas, lora_runs

CONFIGS = {name: point.parameters for name, point in entry_points().items()}

OUTPUT_DIRS = [name for name, config in CONFIGS.items() if "output_dir" in config.__dataclass_fields__]
DATA_DIRS = [name for name, config in CONFIGS.items() if "data_dir" in config.__dataclass_fields__]
DEVICES = [name for name, config in CONFIGS.items() if "device" in config.__dataclass_fields__]
NEEDED = {"import_checkpoints": "--folder . --dataset svhn"}


def look_at(config: Any) -> None:
    """What is done before the heavy imports of the entry point that has these parameters."""
    name = next(name for name, parameters in CONFIGS.items() if type(config) is parameters)
    doors.check(entry_points()[name], config)


def _start(name: str, argv: list[str]) -> None:
    """Everything that `python -m entrypoints.NAME` does before its heavy imports."""
    doors.check(entry_points()[name], cli.parse(CONFIGS[name], argv))


@pytest.mark.parametrize("name", OUTPUT_DIRS)
def test_a_folder_that_cannot_be_written_is_refused_and_none_is_made(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/below"):
        with pytest.raises(Refusal, match=f"output_dir={folder} .* is not a folder"):
            _start(name, ["--output_dir", folder])
    _start(name, ["--output_dir", "new/below"])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", DATA_DIRS)
def test_a_folder_that_is_not_there_is_refused(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "import_checkpoints":  # finds its files, and their data, in its own way
        return
    with pytest.raises(Refusal, match=r"data_dir=absent \(.*absent does not exist\)"):
        _start(name, ["--data_dir", "absent"])


@pytest.mark.parametrize("words", ["train --data_dir", "analyze --output_dir", "train_lora --base_model"])
def test_a_name_that_no_file_system_takes_is_refused(words: str) -> None:
    name, parameter = words.split()
    with pytest.raises(Refusal, match=r"cannot use \S*x+ \(File name too long\)"):
        _start(name, [parameter, "x" * 5000])


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:٣", "cpu:1:2", ""])
def test_no_device_is_called_so(name: str, device: str) -> None:
    words = NEEDED.get(name, "").split()
    with pytest.raises(Refusal, match=f"device={device!r}\n  allowed: auto, cpu, cuda"):
        cli.parse(CONFIGS[name], [*words, "--device", device])
    for known in ("auto", "cpu", "cuda", "cuda:11", "mps"):
        assert cli.parse(CONFIGS[name], [*words, "--device", known])


def test_a_run_that_is_continued_says_itself_what_it_is_of() -> None:
    look_at(TrainLoraConfig(targets="nonsense", resume="abc"))


# ---- layers of base models


def test_layers_known_at_the_door_are_those_of_the_model(tmp_path: Path) -> None:
    llama, gpt2 = lora_runs.base_folder(tmp_path / "llama"), lora_runs.gpt2_folder(tmp_path / "gpt2")
    for folder, targets in ((llama, TARGETS), (gpt2, "c_attn,c_proj,c_fc")):
        known, found = known_layers(str(folder)), target_modules(find_base(str(folder)), tuple(targets.split(",")))
        assert known is not None
        assert found.keys() <= known.keys()
        assert {name: min(known[name]) for name in found} == {name: min(each.shape) for name, each in found.items()}


def test_layers_of_a_gguf_file_are_those_that_it_becomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setenv("NFA_CACHE", str(tmp_path / "cache"))
    file = llamas.gguf(tmp_path / "small.gguf", llamas.llama())
    known, found = known_layers(str(file)), target_modules(find_base(str(file)), tuple(TARGETS.split(",")))
    assert known == {name: each.shape for name, each in found.items()}


WRAPPED = ["module._orig_mod.module.{}.weight", "{}._orig_mod.weight", "module.{}._orig_mod.weight"]


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_layers_that_were_stored_inside_others_are_known_by_their_own_names(wrapped: str, tmp_path: Path) -> None:
    folder = lora_runs.base_folder(tmp_path / "llama")
    file = folder / "model.safetensors"
    weights = {wrapped.format(name.removesuffix(".weight")): tensor for name, tensor in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
    look_at(TrainLoraConfig(base_model=str(folder), targets="q_proj,mlp.down_proj", rank=4))
    with pytest.raises(Refusal, match=r"targets='nonsense'(.|\n)*allowed: down_proj, gate_proj, k_proj, lm_head"):
        look_at(TrainLoraConfig(base_model=str(folder), targets="nonsense"))


def test_tiny_is_known_before_it_is_made() -> None:
    from nfa.registry.families.language.base import tiny

    model = tiny.untrained(tiny.TinySettings())
    shapes = {name: tuple(layer.weight.shape) for name, layer in model.named_modules() if "_proj" in name}
    assert known_layers("tiny") == shapes


def test_what_only_the_hub_or_transformers_know_is_not_refused_at_the_door(tmp_path: Path) -> None:
    folder = lora_runs.base_folder(tmp_path / "llama")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"hidden_size"', '"num_experts": 4, "hidden_size"', 1))
    assert known_layers(str(folder)) is None
    assert known_layers("owner/name") is None
    look_at(TrainLoraConfig(base_model=str(folder), targets="experts.0.w1"))
    look_at(TrainLoraConfig(targets="lm_head"))


def test_memory_counts_what_an_adapter_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainLoraConfig(rank=32)
    needed = machine.BYTES_A_WEIGHT * 2 * 32 * (128 + 96 + 96 + 128 + 3 * 256)
    base = 4 * 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 192)
    for there, fits in ((needed + base, True), (needed + base - 1, False)):
        monkeypatch.setattr(os, "sysconf", lambda name, there=there: there if name == "SC_PHYS_PAGES" else 1)
        if fits:
            look_at(config)
        else:
            with pytest.raises(Refusal, match="rank=32 for 14 modules of base_model=tiny"):
                look_at(config)


def test_files_of_a_study_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(family, "known_layers", asked.append)
    config = TuneConfig(workload="lora")
    look_at(config)
    assert (len(config.candidates) > 50, asked) == (True, ["tiny"])
