"""Files as the record has them: digests of what is in them, by the part of the file where that is."""

import csv
import hashlib
import io
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from benchmarks.golden.masks import DIGESTS, MASK, TIMES, Masks, masked

SERIES = "series.npz"  # what is in it is recorded as metrics
Parts = Iterator[tuple[str, str]]


def digest(content: bytes | str) -> str:
    """Enough of SHA-256 to tell two contents from each other."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:10]


def tree(folder: Path, masks: Masks, *, without: Callable[[Path], bool] = lambda _: False) -> dict[str, str]:
    """Digests of all files in a folder and below, by path and part."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not without(path)):
        name = masks.text(path.relative_to(folder).as_posix())
        for part, value in _parts(path, masks):
            found[f"{name}#{part}" if part else name] = value
    return found


def _parts(path: Path, masks: Masks) -> Parts:
    reader = READERS.get("tfevents" if "tfevents" in path.name else path.suffix)
    if reader:
        yield from reader(path, masks)
    else:
        yield "", "there"


def _text(path: Path, masks: Masks) -> Parts:
    yield "", digest(masks.text(path.read_text(encoding="utf-8")))


def _json(path: Path, masks: Masks) -> Parts:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        yield "", digest(json.dumps(masks.content(content), sort_keys=True))
        return
    for key, value in content.items():
        hidden = key in DIGESTS or masked(key) or path.name == TIMES
        yield masks.text(key), MASK if hidden else digest(json.dumps(masks.content(value), sort_keys=True))


def _csv(path: Path, masks: Masks) -> Parts:
    head, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
    for place, column in enumerate(head):
        values = [masks.text(row[place]) for row in rows]
        yield column, MASK if masked(column) else digest("\n".join(values))


def _npy(path: Path, masks: Masks) -> Parts:  # noqa: ARG001 - numbers alone
    yield "", _array(np.load(path))


def _npz(path: Path, masks: Masks) -> Parts:  # noqa: ARG001
    with np.load(path) as arrays:
        for name in arrays:
            timed = path.name == SERIES and name in ("times", "values")  # durations are among the values
            yield name, MASK if timed or name in DIGESTS else _array(arrays[name])


def _array(array: np.ndarray) -> str:
    return digest(f"{array.dtype} {array.shape} ".encode() + array.tobytes())


def _safetensors(path: Path, masks: Masks) -> Parts:
    with safe_open(path, "pt") as file:
        for key, value in (file.metadata() or {}).items():
            yield f"metadata/{key}", MASK if key in DIGESTS else masks.text(value)
        yield from ((name, _tensor(file.get_tensor(name))) for name in file.keys())  # noqa: SIM118 - no mapping


def _tensor(tensor: Tensor) -> str:
    plain = tensor.detach().contiguous()
    content = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return digest(f"{plain.dtype} {tuple(plain.shape)} ".encode() + content)


def _pickled(path: Path, masks: Masks) -> Parts:
    """By the first two keys that lead to a value; the digest is that of all keys and values below."""
    found: dict[str, list[str]] = {}
    for place, value in _leaves(torch.load(path, weights_only=False), "", masks):
        found.setdefault("/".join(place.split("/")[1:3]), []).append(f"{place} {value}")
    yield from ((place, digest("\n".join(lines))) for place, lines in found.items())


def _leaves(content: Any, place: str, masks: Masks) -> Parts:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _leaves(value, f"{place}/{key}", masks)
    elif isinstance(content, list | tuple) and any(isinstance(one, Tensor | dict) for one in content):
        for key, value in enumerate(content):
            yield from _leaves(value, f"{place}/{key}", masks)
    elif isinstance(content, Tensor):
        yield place, _tensor(content)
    else:
        name = place.rpartition("/")[2]
        yield place, MASK if masked(name) or name in DIGESTS else digest(masks.text(repr(content)))


def _png(path: Path, masks: Masks) -> Parts:  # noqa: ARG001
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    yield "", f"{width} × {height}"


def _events(path: Path, masks: Masks) -> Parts:  # noqa: ARG001
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[str, list[str]] = {}
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            picture = value.metadata.plugin_data.plugin_name == "images"
            content = "a picture" if picture else digest(value.SerializeToString(deterministic=True))
            found.setdefault(value.tag, []).append(f"{event.step} {content}")
    yield from ((tag, digest("\n".join(lines))) for tag, lines in found.items())


READERS: Mapping[str, Callable[[Path, Masks], Parts]] = {
    ".json": _json,
    ".csv": _csv,
    ".txt": _text,
    ".md": _text,
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".pt": _pickled,
    ".png": _png,
    "tfevents": _events,
}
