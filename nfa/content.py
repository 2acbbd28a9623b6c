"""Files that are read back: each carries the SHA-256 digest of its content, which is checked when it is read.

JSON files, training states and .npz files store it under the key `digest`, safetensors files in their metadata, and
.npy files behind their last value, where NumPy does not look. Readers raise whatever a damaged file makes a library
raise, and ValueError where content and digest differ: read within `nfa.errors.reading`.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

DIGEST = "digest"
TRAILER = b"\nsha256 %s\n"
SCALARS = (str, bytes, int, float, complex, bool, type(None))


class Found(NamedTuple):
    """The content of a file without its digest; `sealed` is false for files without one, such as those of version 0.6.
    """

    content: Any
    sealed: bool


def _compared(content: Any, stated: Any, digest: str) -> Found:
    if stated not in (None, digest):
        raise ValueError("damaged: its content does not match its digest")
    return Found(content, stated is not None)


def of_sealed(found: Found) -> Any:
    """Return the content of a file that must have a digest; ValueError where it is missing."""
    if not found.sealed:
        raise ValueError("damaged: its digest is missing")
    return found.content


# ---- digests


def json_digest(content: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(content: Any) -> str:
    """Return the SHA-256 of nested mappings, sequences, scalars, tensors and arrays: their types, shapes and bytes.

    The order of a mapping's keys and the device of a tensor do not matter.

    >>> digest_of({"a": 1, "b": [2.0]}) == digest_of({"b": [2.0], "a": 1})
    True
    >>> digest_of({"a": 1}) == digest_of({"a": True})
    False
    """
    hashed = hashlib.sha256()
    for part in _parts(content):
        hashed.update(part)
    return hashed.hexdigest()


def _parts(content: Any) -> Iterator[Any]:
    """Yield what is hashed, piece by piece; each piece begins with its type and size, so that no two contents coincide.
    """
    kind = type(content).__name__
    if isinstance(content, Mapping):
        yield f"mapping {len(content)}\n".encode()
        for key in sorted(content, key=lambda key: (type(key).__name__, ascii(key))):
            yield from _parts(key)
            yield from _parts(content[key])
    elif isinstance(content, list | tuple):
        yield f"{kind} {len(content)}\n".encode()
        for item in content:
            yield from _parts(item)
    elif isinstance(content, SCALARS):
        yield f"{kind} {content!a}\n".encode()
    else:
        yield from _values(content)


def _values(content: Any) -> Iterator[Any]:
    """Yield the bytes of a tensor or an array, without a copy where they are contiguous on the CPU."""
    import numpy as np

    if isinstance(content, np.ndarray):
        yield f"array {content.dtype.str} {content.shape}\n".encode()
        yield np.ascontiguousarray(content).reshape(-1).view(np.uint8)
        return
    import torch

    if not isinstance(content, torch.Tensor):
        raise TypeError(f"a {type(content).__name__} has no digest")
    if content.layout is not torch.strided:  # such as the momentum of an embedding with sparse gradients
        yield f"{content.layout}\n".encode()
        content = content.to_dense()
    yield f"tensor {content.dtype} {tuple(content.shape)} {content.requires_grad}\n".encode()
    yield content.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


# ---- JSON


def json_text(content: Mapping[str, Any]) -> str:
    """Return a JSON object with its digest; NaN and infinity are refused."""
    plain = json.loads(json.dumps(content, allow_nan=False))
    assert DIGEST not in plain
    return json.dumps({**plain, DIGEST: json_digest(plain)}, indent=1, ensure_ascii=False)


def read_json(file: Path) -> Found:
    """Read a JSON file; only objects have a digest."""
    content = json.loads(file.read_text(encoding="utf-8"))
    stated = content.pop(DIGEST, None) if isinstance(content, dict) else None
    return _compared(content, stated, json_digest(content))


def kept_json(file: Path) -> dict[str, Any]:
    """Read a JSON object of our own, which always has a digest."""
    content: dict[str, Any] = of_sealed(read_json(file))
    return content


# ---- arrays


def write_array(file: Path, array: "np.ndarray[Any, Any]") -> None:
    """Write a .npy file that is read without pickle."""
    import numpy as np

    with file.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
        stream.write(TRAILER % digest_of(array).encode())


def read_array(file: Path) -> Found:
    """Read the array of a .npy file into memory."""
    import numpy as np

    array, stated = mapped_array(file)
    content = np.array(array)
    return _compared(content, stated, digest_of(content))


def mapped_array(file: Path) -> "tuple[np.memmap[Any, Any], str | None]":
    """Map the array of a .npy file into memory without reading it, and return it with its digest.

    ValueError where bytes follow that are no digest.
    """
    import numpy as np

    array = np.lib.format.open_memmap(file, mode="r")
    with file.open("rb") as stream:
        stream.seek(array.offset + array.nbytes)
        rest = stream.read(len(TRAILER) + 64)
    stated = rest[8:-1].decode("ascii", "replace") or None
    if rest != (TRAILER % stated.encode() if stated else b""):
        raise ValueError("it has extra bytes after its last value")
    return array, stated


def write_arrays(file: Path, arrays: "Mapping[str, np.ndarray[Any, Any]]") -> None:
    """Write arrays by name to a compressed .npz file that is read without pickle."""
    import numpy as np

    sealed = {**arrays, DIGEST: np.array(digest_of(arrays))}
    with file.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **sealed)


def read_arrays(file: Path) -> Found:
    """Read the arrays of a .npz file into memory, by name."""
    import numpy as np

    with np.load(file, allow_pickle=False) as stored:
        content = dict(stored)
    stated = content.pop(DIGEST, None)
    return _compared(content, None if stated is None else str(stated), digest_of(content))


# ---- tensors


def write_tensors(file: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] = {}) -> None:
    """Write a safetensors file; tied weights are stored under each of their names."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = _apart(tensors)
    try:
        save_file(plain, file, {**metadata, DIGEST: digest_of([plain, dict(metadata)])})
    except SafetensorError as error:  # raised when the disk is full
        raise OSError(f"{file.name} could not be written: {error}") from error


def _apart(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return contiguous tensors on the CPU that share no memory, as safetensors requires."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if place in taken else plain
        taken.add(place)
    return found


def read_tensors(file: Path) -> Found:
    """Return the tensors of a safetensors file by name, and its metadata."""
    return _tensors(file, lambda stored: dict(stored))


def check_tensors(file: Path) -> Found:
    """Check the digest of a safetensors file with only one tensor in memory at a time; the tensors are not returned."""
    return _tensors(file, lambda stored: stored)


def _tensors(file: Path, take: "Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]") -> Found:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        metadata = opened.metadata() or {}
        stated = metadata.pop(DIGEST, None)
        content = take(_Stored(opened)), metadata
        return _compared(content, stated, digest_of([*content]))


class _Stored(Mapping[str, "Tensor"]):
    """The tensors of an open safetensors file, each of which is read when it is accessed."""

    def __init__(self, opened: Any) -> None:
        self._opened, self._names = opened, list(opened.keys())

    def __getitem__(self, name: str) -> "Tensor":
        found: Tensor = self._opened.get_tensor(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


# ---- training states


def write_state(file: Path, state: Mapping[str, Any]) -> None:
    """Write a training state of tensors, numbers and names with `torch.save`."""
    import torch

    sealed = {**state, DIGEST: digest_of(state)}
    try:
        torch.save(sealed, file)
    except RuntimeError as error:  # raised when the disk is full
        raise OSError(f"{file.name} could not be written: {error}") from error


def read_state(file: Path) -> Found:
    """Read a training state to the CPU."""
    state = unpickled(file)
    stated = state.pop(DIGEST, None)
    return _compared(state, stated, digest_of(state))


def unpickled(file: Path) -> Any:
    """Load a file of `torch.save` to the CPU, without running pickled code; ValueError for anything else."""
    import torch

    try:
        return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # damaged bytes can raise any error, some with the advice to run their content
        if isinstance(error, OSError) and error.filename:
            raise
        needed = re.search(r"GLOBAL (\S+)", str(error))
        pickled = f"it needs pickle for {needed[1]}, and unpickling can run arbitrary code" if needed else ""
        raise ValueError(pickled or "truncated, damaged, or not written by torch.save") from error


READERS: Mapping[str, Callable[[Path], Found]] = {
    ".json": read_json,
    ".npy": read_array,
    ".npz": read_arrays,
    ".safetensors": check_tensors,
    ".pt": read_state,
}
