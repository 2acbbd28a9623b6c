"""What we wrote and read back: every change of a file's content is refused, whatever has changed it."""

import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from nfa import __version__, content
from nfa.registry.families.eeg import data
from nfa.registry.tracking import artifacts
from nfa.registry.tracking.series_file import LoggedRows
from tests.support.fuzzing import BOTH, COUNT, of_bytes, of_tensors, of_values, outcomes

TENSORS = {
    "layers.0.weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "layers.1.weight": torch.linspace(-1, 1, 6).reshape(2, 3).to(torch.bfloat16),
    "steps": torch.tensor(7),
}
CONFIG = {
    "entrypoint": "train",
    "workload": "mlp",
    "nfa_version": __version__,
    "train": {"optimizer": "sgd", "lr": 0.1, "width": 8, "depth": 2, "schedule": "0-2,4", "device": "cpu"},
    "data": {"name": "digits", "digest": "ab" * 32},
    "environment": {"threads": 1, "torch": "2.13"},
}
IDS = {"train": list(range(40)), "val": [41, 44], "test": [], "probe": [3, 1, 2]}
ROWS = LoggedRows()
for _step in range(4):
    for _key in ("val/loss", "layer_0/agop_nfm", "layer_1/agop_nfm_chance"):
        ROWS.add(_key, _step * 10, 0.1 * _step, 1_800_000_000_000 + _step)
STATE = {
    "model": {name: tensor for name, tensor in TENSORS.items() if tensor.dim()},
    "optimizer": {"state": {0: {"momentum": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
    "generators": {"cpu": torch.arange(16, dtype=torch.uint8), "cuda": []},
    "progress": {"epoch": 2, "batch": 7, "reported": False},
}


# ---- an independent look at what is in a file


def of_json(raw: bytes) -> Any:
    return {name: value for name, value in json.loads(raw).items() if name != "digest"}


def of_array(raw: bytes) -> Any:
    array = np.lib.format.read_array(io.BytesIO(raw), allow_pickle=False)
    return array.dtype.str, array.shape, array.tobytes()


def of_arrays(raw: bytes) -> Any:
    with np.load(io.BytesIO(raw)) as arrays:
        return {name: (arrays[name].dtype.str, arrays[name].tolist()) for name in arrays if name != "digest"}


def of_safetensors(raw: bytes) -> Any:
    length = int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    metadata = {name: text for name, text in header.pop("__metadata__").items() if name != "digest"}
    return metadata, {
        name: (told["dtype"], told["shape"], body[slice(*told["data_offsets"])]) for name, told in header.items()
    }


def of_state(raw: bytes) -> Any:
    state = torch.load(io.BytesIO(raw), weights_only=True)
    del state["digest"]
    return plain(state)


def plain(value: Any) -> Any:
    """Tensors as types, shapes and numbers; every type of everything beside it."""
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.requires_grad, value.float().tolist()
    if isinstance(value, dict):
        return {(type(key), key): plain(inner) for key, inner in value.items()}
    return type(value), [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


# ---- the same files, changed by a program that knows the format and leaves the digest as it was


def changed_json(raw: bytes, draw: random.Random) -> bytes:
    return json.dumps(of_values(json.loads(raw), draw), indent=1).encode()


def changed_tensors(raw: bytes, draw: random.Random) -> bytes:
    metadata, _ = of_safetensors(raw)
    told = {**metadata, "digest": json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]["digest"]}
    return save(of_tensors(TENSORS, draw), told) if draw.random() < 0.9 else save(TENSORS, {**told, "epoch": "5"})


def changed_state(raw: bytes, draw: random.Random) -> bytes:
    made = io.BytesIO()
    torch.save(of_values(torch.load(io.BytesIO(raw), weights_only=True), draw), made)
    return made.getvalue()


def changed_array(raw: bytes, draw: random.Random) -> bytes:
    made, array = io.BytesIO(), np.lib.format.read_array(io.BytesIO(raw))
    other = draw.choice((array.T, array + 1, array[:-1], array.astype("f4"), array.astype(">f8"), array.reshape(-1)))
    np.lib.format.write_array(made, other)
    return made.getvalue() + raw[-73:]


def changed_arrays(raw: bytes, draw: random.Random) -> bytes:
    with np.load(io.BytesIO(raw)) as stored:
        arrays = dict(stored)
    name = draw.choice([name for name in arrays if name != "digest"])
    array = arrays.pop(name)
    other = draw.choice((array[::-1], array[:-1], array.astype("U"), np.append(array, array[-1:]), array[None]))
    arrays[draw.choice((name, name, name[::-1]))] = other
    made = io.BytesIO()
    np.savez_compressed(made, **arrays)
    return made.getvalue()


@dataclass(frozen=True)
class Format:
    """How a file is written, read, changed, and looked into by other means."""

    name: str
    write: Callable[[Path], object]
    read: Callable[[str], Any]
    changed: Callable[[bytes, random.Random], bytes]
    look: Callable[[bytes], Any]
    quick: bool = True

    def mutations(self, raw: bytes, count: int) -> Iterator[bytes]:
        draw = random.Random(20)
        for number in range(count):
            yield self.changed(raw, draw) if number % 2 else of_bytes(raw, draw)


def json_format(name: str, values: dict[str, Any]) -> Format:
    def write(file: Path) -> None:
        file.write_text(content.json_text(values), encoding="utf-8")

    return Format(name, write, lambda path: artifacts.get_json("a" * 32, path), changed_json, of_json)


def tensors_format(name: str, read: Callable[[str, str], Any]) -> Format:
    def write(file: Path) -> None:
        content.write_tensors(file, TENSORS, {"epoch": "4", "nfa_version": __version__})

    return Format(name, write, lambda path: read("a" * 32, path), changed_tensors, of_safetensors)


FORMATS = [
    json_format("config.json", CONFIG),
    json_format("example_ids.json", IDS),
    tensors_format("epoch_0004.safetensors", artifacts.get_tensors),
    tensors_format("svd_factors_rank4.safetensors", artifacts.whole),
    Format(
        "latest.pt",
        lambda file: content.write_state(file, STATE),
        lambda path: artifacts.read("a" * 32, path),
        changed_state,
        of_state,
        quick=False,
    ),
    Format(
        "val_-_one_-_story_-_eeg.npy",
        lambda file: recordings(file.parent),
        lambda _: data.load(Path.cwd(), window=64),
        changed_array,
        of_array,
        quick=False,
    ),
    Format(
        "cosines.npy",
        lambda file: content.write_array(file, np.linspace(0, 1, 12).reshape(3, 4)),
        lambda path: artifacts.get_array("a" * 32, path),
        changed_array,
        of_array,
    ),
    Format(
        "series.npz",
        lambda file: content.write_arrays(file, ROWS.arrays()),
        lambda path: artifacts.read("a" * 32, path),
        changed_arrays,
        of_arrays,
    ),
]


def recordings(folder: Path) -> None:
    """As they are simulated and prepared."""
    values = np.random.default_rng(0).normal(size=(140, 3))
    for split in data.SPLITS:
        for kind, array in (("eeg", values), ("envelope", np.abs(values[:, :1]))):
            content.write_array(folder / f"{split}_-_one_-_story_-_{kind}.npy", array)


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files of a run are, of which nothing but its version is known."""
    run = SimpleNamespace(data=SimpleNamespace(tags={"nfa.version": __version__}))
    monkeypatch.setattr(artifacts, "client", lambda: SimpleNamespace(get_run=lambda _: run))
    monkeypatch.setattr(artifacts, "get", lambda _, path: tmp_path / path)
    monkeypatch.setenv("NFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind.quick], ids=lambda kind: kind.name)
def test_changed_content_is_refused_and_nothing_else_comes_out(kind: Format, run_folder: Path) -> None:
    refuses(kind, run_folder, COUNT)


@pytest.mark.parametrize("count", BOTH)
@pytest.mark.parametrize("kind", [kind for kind in FORMATS if not kind.quick], ids=lambda kind: kind.name)
def test_changed_content_of_what_takes_longer_is_refused_as_well(kind: Format, count: int, run_folder: Path) -> None:
    refuses(kind, run_folder, count)


def refuses(kind: Format, folder: Path, count: int) -> None:
    """Of a file's mutations, those that are read hold what was written; most are none of them."""
    file = folder / kind.name
    kind.write(file)
    raw = file.read_bytes()
    whole = kind.look(raw)
    kind.read(kind.name)
    made = kind.mutations(raw, count)
    found = outcomes(file, made, lambda _: kind.read(kind.name), lambda content, _: kind.look(content) == whole)
    assert found["refused"] > count * 3 / 4


FULL = {
    content.write_state: ("torch.save", RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos")),
    content.write_tensors: ("safetensors.torch.save_file", SafetensorError("I/O error: No space left on device")),
}


@pytest.mark.parametrize("write", FULL)
def test_a_full_disk_is_an_error_of_the_system_whatever_library_writes(
    write: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, error = FULL[write]

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(name, fails)
    with pytest.raises(OSError, match="file could not be written"):
        write(tmp_path / "file", {"a": torch.zeros(3)})
