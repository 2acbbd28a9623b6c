"""GGUF files: their header, and their conversion to a folder of safetensors, once."""

import math
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from nfa.console import stage
from nfa.errors import Refusal, reading
from nfa.registry.families.language.base import files
from nfa.registry.families.language.base.names import MAGIC
from nfa.registry.families.language.base.quiet import quiet
from nfa.registry.folders import cache_folder

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value by its type's number
UINT32, STRING, ARRAY = 4, 8, 9
ALIGNMENT = 32  # bytes, unless the file says another one
ALLOWED = "a GGUF file, version 2 or 3, of a language model that transformers can read"


class Header(NamedTuple):
    """What the weights are of, and the shapes of all tensors by name, innermost side first."""

    architecture: str
    shapes: dict[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        """How many weights there are."""
        return sum(map(math.prod, self.shapes.values()))


def read_header(file: Path) -> Header:
    """Architecture and shapes of the weights; `Refusal` for a file that is no GGUF or is cut off.

    Layout (little-endian): magic, version, number of tensors and of entries; entries of key, type, value; for each
    tensor its name, dimensions, type, and offset. Source: the format's specification, ggml's docs/gguf.md.
    """
    with reading(file, ALLOWED, "the file is damaged or another kind: get it again"), file.open("rb") as opened:
        return _header(opened, file.stat().st_size)


def _header(opened: BinaryIO, size: int) -> Header:
    if opened.read(4) != MAGIC:
        raise ValueError("no GGUF file")
    version, tensors, entries = _unpack(opened, "<IQQ")
    if version not in (2, 3):
        raise ValueError(f"version {version}")
    values = _named((_string(opened).decode(), _value(opened, *_unpack(opened, "<I"))) for _ in range(entries))
    found = _named((_string(opened).decode(), _tensor(opened)) for _ in range(tensors))
    alignment = int(values.get("general.alignment") or ALIGNMENT)
    begin = -(-opened.tell() // alignment) * alignment
    if begin + max(stop for _, stop in found.values()) > size:
        raise ValueError("the file is cut off")
    shapes = {name: shape for name, (shape, _) in found.items()}
    return Header(str(values.get("general.architecture") or "unknown"), shapes)


def _named(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in items:
        if name in found:
            raise ValueError(f"{name!r} twice")
        found[name] = value
    return found


def _tensor(opened: BinaryIO) -> tuple[tuple[int, ...], int]:
    """A tensor's shape, and where its bytes end, counted from those of the first."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    shape = _unpack(opened, f"<{_unpack(opened, '<I')[0]}Q")
    numbers = math.prod(shape)
    kind, start = _unpack(opened, "<IQ")
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    if not numbers or numbers % block:
        raise ValueError(f"a tensor of {numbers} numbers in blocks of {block}")
    return shape, start + numbers // block * size


def _unpack(opened: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, opened.read(struct.calcsize(layout)))


def _string(opened: BinaryIO) -> bytes:
    (length,) = _unpack(opened, "<Q")
    (text,) = _unpack(opened, f"<{length}s")
    return bytes(text)


def _value(opened: BinaryIO, kind: int) -> str | int | None:
    """A string or an unsigned number of 32 bits; other values are passed over."""
    if kind == STRING:
        return _string(opened).decode("utf-8", "replace")
    if kind == UINT32:
        return int(_unpack(opened, "<I")[0])
    if kind == ARRAY:
        inner, length = _unpack(opened, "<IQ")
        if inner in SIZES:
            opened.seek(SIZES[inner] * length, 1)
        for _ in range(0 if inner in SIZES else length):
            _value(opened, inner)
    else:
        opened.seek(SIZES[kind], 1)
    return None


def converted(file: Path) -> Path:
    """The folder of safetensors (float32), configuration and tokenizer that a GGUF file becomes, in the cache.

    Made once for a content; an interrupted conversion leaves nothing. `Refusal` before it starts for damaged files and
    too little room, and for what transformers cannot read.
    """
    sha256 = files.sha256_of(file)
    name = re.sub(r"[^\w.-]+", "_", file.stem)
    folder = cache_folder("base-models") / f"{name}-{sha256[:16]}"
    return files.made_once(folder, lambda inner: _convert(file, folder, inner))


def _convert(file: Path, folder: Path, inner: Path) -> None:
    header = read_header(file)
    needed = 4 * header.parameters + (64 << 20)
    files.check_space(folder, needed)
    stage("base model", f"converting {file.name} to {folder} ({needed / 1e9:.2f} GB): once, 20–30 s for 100 MB")
    try:
        with quiet():
            _write(file, inner)
    except Exception as error:  # whatever transformers raises for architectures and tokenizers that it does not know
        if isinstance(error, OSError) and error.errno:  # a full disk, say
            raise
        reason = (str(error).strip().splitlines() or [""])[0]
        got = f"{file} (architecture {header.architecture}; {type(error).__name__}: {reason})"
        raise Refusal(got, ALLOWED, "pass the folder of the same model in safetensors, or smollm2") from error


def _write(file: Path, inner: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    # Without the configuration the model stays marked as quantised and can be neither saved nor trained.
    load: Callable[..., Any] = AutoModelForCausalLM.from_pretrained
    model, info = load(
        file.parent,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        local_files_only=True,
        output_loading_info=True,
    )
    if info["missing_keys"]:
        raise ValueError(f"no weights for {', '.join(sorted(info['missing_keys'])[:3])}")
    model.save_pretrained(inner)
    tokenizer.save_pretrained(inner)
