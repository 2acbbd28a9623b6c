"""What others wrote and we read: whatever has happened to a file, it is read as it stands or refused by its name."""

import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from nfa.registry.families.eeg import data
from nfa.registry.families.eeg.preparation.config import PrepareEEGConfig
from nfa.registry.families.eeg.preparation.formats import open_recording
from nfa.registry.families.eeg.preparation.recordings import Recording
from nfa.registry.families.language import questions
from nfa.registry.families.language.base import files, gguf_files
from nfa.registry.families.language.base.models import find_base
from nfa.registry.families.mlp import import_checkpoints
from tests.support import llamas
from tests.support.fuzzing import BOTH, COUNT, of_bytes, of_tensors, of_values, outcomes

FEW = 20  # mutations, in every run of the tests, of what transformers reads
OLD = {
    "first.weight": torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
    "middle.0.1.weight": torch.eye(4),
    "last.1.weight": torch.ones(2, 4),
}
CONFIGURATION = {"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "rope_scaling": None, "tied": True}
INDEX = {"metadata": {"total_size": 8}, "weight_map": {"a.weight": "a.safetensors", "b.weight": "b.safetensors"}}
ITEMS = [
    {"question": "What?", "answer": "This."},
    {"instruction": "Add", "input": "1, 2", "output": "3"},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hö"}]},
]
RECORDED = np.random.default_rng(0).normal(size=(140, 3)).astype(np.float32)
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Format:
    """A sound file, how it is read, whether what was read is right, and what else has to be in its folder.

    `changed` is what a program that knows the format makes of it.
    """

    name: str
    raw: bytes
    read: Callable[[Path], Any]
    accepted: Callable[[bytes, Any], object]
    changed: Callable[[random.Random], bytes] | None = None
    beside: Callable[[Path], object] = lambda _: None
    named: str = ""  # in a refusal, where it is not the file
    quick: bool = True

    def mutations(self, count: int) -> Iterator[bytes]:
        draw = random.Random(20)
        for number in range(count):
            yield self.changed(draw) if self.changed and number % 2 else of_bytes(self.raw, draw)


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def changed_json(value: Any) -> Callable[[random.Random], bytes]:
    return lambda draw: as_json(of_values(value, draw))


# ---- checkpoints of older programs


def pickled(weights: Any) -> bytes:
    made = io.BytesIO()
    torch.save({"state_dict": weights}, made)
    return made.getvalue()


def same_weights(raw: bytes, got: dict[str, Tensor]) -> bool:
    content = torch.load(io.BytesIO(raw), weights_only=True)
    found = list(content.get("state_dict", content).values())
    assert {tensor.dtype for tensor in got.values()} == {torch.float32}
    return len(found) == len(got) and all(any(torch.equal(one, other) for other in found) for one in got.values())


def changed_weights(draw: random.Random) -> bytes:
    odd = draw.choice((torch.eye(4).to_sparse(), torch.empty(4, 4, device="meta"), torch.ones(())))
    return pickled(draw.choice((of_tensors(OLD, draw), of_values(OLD, draw), {**OLD, "middle.0.1.weight": odd})))


# ---- base models


def parts(folder: Path) -> None:
    for name in "ab":
        (folder / f"{name}.safetensors").write_bytes(save({f"{name}.weight": torch.ones(2)}))


def changed_tensors(draw: random.Random) -> bytes:
    return save(of_tensors(OLD, draw), {"format": "pt"})


def one_after_the_other(raw: bytes, got: dict[str, files.Entry]) -> bool:
    """Tensors stand side by side up to the end of the file, each in as many bytes as it needs."""
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
    length = int.from_bytes(raw[:8], "little")
    begin = 8 + length
    for entry in sorted(got.values(), key=lambda entry: (entry.start, entry.stop)):
        assert (entry.start, entry.stop) == (begin, begin + sizes[entry.dtype] * int(np.prod(entry.shape)))
        begin = entry.stop
    return begin == len(raw) and got.keys() == json.loads(raw[8 : 8 + length]).keys() - {"__metadata__"}


def gguf(folder: Path) -> bytes:
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(folder / "whole.gguf", "llama")
    writer.add_block_count(1)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("a.weight", np.ones((2, 3), np.float32))
    writer.add_tensor("b.weight", np.ones((1, 18), np.uint8), raw_dtype=GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return (folder / "whole.gguf").read_bytes()


def as_the_library_reads_it(_: bytes, got: tuple[Path, gguf_files.Header]) -> bool:
    from gguf import GGUFReader

    file, header = got
    reader = GGUFReader(file)
    architecture = reader.fields.get("general.architecture")
    assert header.architecture == (architecture.contents() if architecture else "unknown")
    return header.parameters == sum(int(tensor.n_elements) for tensor in reader.tensors)


# ---- questions


def same_answers(raw: bytes, got: questions.QuestionData) -> bool:
    try:
        items = json.loads(raw)
    except ValueError:
        items = [json.loads(line) for line in raw.split(b"\n") if line.strip()]
    items = items if isinstance(items, list) else [items]
    assert all(isinstance(pair.prompt[-1][1], str) for pair in got.pairs)
    return [pair.answer for pair in got.pairs] == list(map(answer, items))


def answer(item: dict[str, Any]) -> Any:
    if {"question", "answer"} <= item.keys():
        return item["answer"]
    if {"instruction", "output"} <= item.keys():
        return item["output"]
    return [message["content"] for message in item["messages"] if message["role"] == "assistant"][-1]


# ---- recordings


def npy(array: Array) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


def changed_npy(draw: random.Random) -> bytes:
    others = (RECORDED.T, RECORDED[:-1], RECORDED.astype(complex), RECORDED.astype("i2"), RECORDED[:, :0], RECORDED[0])
    return npy(draw.choice([*others, RECORDED + np.nan, np.asfortranarray(RECORDED)]))


def array_in(raw: bytes) -> Array:
    stream = io.BytesIO(raw)
    array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    assert stream.read() == b""
    return array


def prepared(folder: Path) -> None:
    for split in data.SPLITS:
        (folder / f"{split}_-_one_-_story_-_eeg.npy").write_bytes(npy(RECORDED))
        (folder / f"{split}_-_one_-_story_-_envelope.npy").write_bytes(npy(np.abs(RECORDED[:, :1])))


def same_part(raw: bytes, got: data.EEGData) -> bool:
    array, (part,) = array_in(raw), got.of("val")
    return bool(np.isfinite(array).all()) and array.shape == (part.samples, got.channels)


def recorded(folder: Path) -> None:
    (folder / "envelope.npy").write_bytes(npy(np.abs(RECORDED[:, 0])))


def opened(file: Path) -> Array:
    config = PrepareEEGConfig(source=".", target="out", eeg_rate=64)
    signal = open_recording(Recording("one_-_story", file, file.with_name("envelope.npy")), config).eeg
    return signal.read(0, signal.samples)  # type: ignore[no-any-return]


def same_numbers(raw: bytes, got: Array) -> bool:
    return np.array_equal(array_in(raw).astype(np.float64), got, equal_nan=True)


# ---- each of them


FORMATS = [
    Format(
        "model_epoch_3.pth",
        pickled(OLD),
        lambda file: import_checkpoints.read(file.parent, file.name),
        same_weights,
        changed_weights,
        quick=False,
    ),
    Format(
        "config.json",
        as_json(CONFIGURATION),
        lambda file: files.configuration(file.parent),
        lambda raw, got: isinstance(got, dict) and json.loads(raw) == got,
        changed_json(CONFIGURATION),
    ),
    Format(
        files.INDEX,
        as_json(INDEX),
        lambda file: files.weight_files(file.parent),
        lambda raw, got: {file.name for file in got} == set(json.loads(raw)["weight_map"].values()),
        changed_json(INDEX),
        parts,
    ),
    Format(
        "model.safetensors",
        save(OLD, {"format": "pt"}),
        lambda file: files.entries([file]),
        one_after_the_other,
        changed_tensors,
    ),
    Format("pairs.json", as_json(ITEMS), lambda file: questions.load(str(file)), same_answers, changed_json(ITEMS)),
    Format("pairs.jsonl", b"\n".join(map(as_json, ITEMS)), lambda file: questions.load(str(file)), same_answers),
    Format(
        "val_-_one_-_story_-_eeg.npy",
        npy(RECORDED),
        lambda file: data.load(file.parent, window=64),
        same_part,
        changed_npy,
        prepared,
        quick=False,
    ),
    Format("eeg.npy", npy(RECORDED), opened, same_numbers, changed_npy, recorded),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NFA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def survives(kind: Format, folder: Path, count: int = COUNT) -> None:
    """No mutation brings out anything but an `NfaError`, and what is read is what stands in the file."""
    kind.beside(folder)
    (folder / kind.name).write_bytes(kind.raw)
    kind.read(folder / kind.name)
    found = outcomes(folder / kind.name, kind.mutations(count), kind.read, kind.accepted, kind.named)
    assert found["refused"] > count // 4


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind.quick], ids=lambda kind: kind.name)
def test_a_damaged_file_is_refused_by_name_or_read_as_it_stands(kind: Format, folder: Path) -> None:
    survives(kind, folder)


@pytest.mark.parametrize("count", BOTH)
@pytest.mark.parametrize("kind", [kind for kind in FORMATS if not kind.quick], ids=lambda kind: kind.name)
def test_a_damaged_file_that_takes_longer_is_refused_by_name_as_well(kind: Format, count: int, folder: Path) -> None:
    survives(kind, folder, count)


def test_a_damaged_gguf_file_is_refused_by_name_or_read_as_it_stands(folder: Path, tmp_path: Path) -> None:
    def read(file: Path) -> tuple[Path, gguf_files.Header]:
        return file, gguf_files.read_header(file)

    survives(Format("small.gguf", gguf(tmp_path), read, as_the_library_reads_it), folder)


@pytest.mark.parametrize("count", [FEW, pytest.param(COUNT, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_base_model_with_a_damaged_file_is_found_or_refused(
    name: str, count: int, folder: Path, tmp_path: Path
) -> None:
    whole = llamas.saved(tmp_path / "whole")

    def beside(folder: Path) -> None:
        for file in whole.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())

    raw = (whole / name).read_bytes()
    kind = Format(
        name,
        raw,
        lambda file: find_base(str(file.parent)),
        lambda raw, _: isinstance(json.loads(raw), dict),
        changed_json(json.loads(raw)),
        beside,
        named=str(folder),
    )
    survives(kind, folder, count)
