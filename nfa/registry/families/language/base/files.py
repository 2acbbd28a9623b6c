"""The files of a base model: weights, contents, and facts about them that are cached."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nfa import unfinished
from nfa.content import file_sha256, json_text, kept_json
from nfa.errors import Refusal, reading
from nfa.registry.folders import cache_folder
from nfa.registry.remembered import keep, recalled

SAFETENSORS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = {"F64", "F32", "F16", "BF16"}
CONTENTS = "a folder with config.json, model.safetensors (or its parts and their index) and a tokenizer"
MADE = "made.json"  # SHA-256 of the files that are made here
CHUNK = 1 << 22


class Entry(NamedTuple):
    """One tensor of a safetensors file: its dtype, shape, and its bytes from `start` to `stop` of `file`."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def configuration(folder: Path) -> dict[str, Any]:
    """config.json; raise `Refusal` if it is missing or no JSON object, and for quantised models and adapters."""
    path = folder / "config.json"
    if (folder / "adapter_config.json").is_file() and not path.is_file():
        raise Refusal(f"{folder} (an adapter, not a base model)", CONTENTS, "pass the adapter's base model")
    with reading(path, CONTENTS, "pass the folder that save_pretrained wrote"):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no object")
    if found.get("quantization_config"):
        remedy = "use the unquantised weights, or a GGUF file, which is dequantised"
        raise Refusal(f"{folder} (quantised weights)", "weights in float32, float16 or bfloat16", remedy)
    return found


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that transformers reads: model.safetensors, else those that its index names, sorted.

    Raises `Refusal` if there are none; weights in pickle files (.bin, .pt) are never read.
    """
    if (folder / SAFETENSORS).is_file():
        return (folder / SAFETENSORS,)
    if (folder / INDEX).is_file():
        return _parts(folder)
    pickles = [file.name for file in sorted(folder.iterdir()) if file.suffix in {".bin", ".pt", ".pth", ".ckpt"}]
    if pickles:
        remedy = "convert them if you trust their origin: from_pretrained(…), then save_pretrained(FOLDER)"
        raise Refusal(f"{folder} (weights in pickle files: {', '.join(pickles[:3])})", "*.safetensors", remedy)
    others = ", ".join(file.name for file in sorted(folder.glob("*.safetensors"))) or "no *.safetensors"
    raise Refusal(f"{folder} ({others})", CONTENTS, "pass the folder that save_pretrained wrote")


def _parts(folder: Path) -> tuple[Path, ...]:
    with reading(folder / INDEX, "an index with a weight_map: tensor → file", "download the file again"):
        names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("its weight_map names no files of this folder")
        missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise Refusal(f"{folder} (lacks {', '.join(missing)})", f"all parts named in {INDEX}", "download these files")
    return tuple(folder / name for name in names)


def entries(files: Iterable[Path]) -> dict[str, Entry]:
    """Return all tensors, sorted by name, from the headers; raise `Refusal` for damaged files and integer weights.

    A file is 8 bytes (length of the header, little-endian), a JSON header, and the tensors' bytes.
    """
    found = dict(sorted(entry for file in files for entry in _entries(file)))
    strange = [f"{name} ({entry.dtype})" for name, entry in found.items() if _is_quantised(name, entry)]
    if strange:
        remedy = "use the unquantised weights, or a GGUF file, which is dequantised"
        raise Refusal(f"{strange[0]} among the weights", "weights in float32, float16 or bfloat16", remedy)
    return found


def _is_quantised(name: str, entry: Entry) -> bool:
    return name.endswith("weight") and entry.dtype not in FLOATS  # integers of other names are positions and masks


def _entries(file: Path) -> list[tuple[str, Entry]]:
    from safetensors import safe_open

    with reading(file, "a safetensors file", "the file is damaged; download it again"):
        with safe_open(file, "np"):  # raises where header and bytes do not fit together
            pass
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
        header.pop("__metadata__", None)
        return [(name, _entry(file, 8 + length, **value)) for name, value in header.items()]


def _entry(file: Path, begin: int, *, dtype: str, shape: list[int], data_offsets: list[int]) -> Entry:
    start, stop = data_offsets
    return Entry(file, dtype, tuple(shape), begin + start, begin + stop)


def digest(tensors: Mapping[str, Entry]) -> str:
    """SHA-256 over every tensor in the order of its name: name, dtype, shape, bytes; however they are split over files.

    Metadata and the order within a file do not count.
    """
    content = hashlib.sha256()
    for name, entry in sorted(tensors.items()):
        content.update(f"{name}\n{entry.dtype}\n{list(entry.shape)}\n".encode())
        with entry.file.open("rb") as opened:
            opened.seek(entry.start)
            for place in range(entry.start, entry.stop, CHUNK):
                content.update(opened.read(min(CHUNK, entry.stop - place)))
    return content.hexdigest()


def facts_of(what: str, files: Sequence[Path], find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return `find()`, cached by `what` and by the paths, sizes and modification times of the files."""
    facts = [(str(file), *_stamp(file)) for file in files]
    key = hashlib.sha256(json.dumps([what, facts]).encode()).hexdigest()
    note = cache_folder("base-models") / "known" / f"{key[:32]}.json"
    known = recalled(note, dict)
    if known is None:
        known = find()
        keep(note, known)
    return known


def _stamp(file: Path) -> tuple[int, ...]:
    facts = file.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Return `folder`, created by `make` if it does not exist; raise `Refusal` if a file in it has changed."""

    def sealed(inner: Path) -> None:
        make(inner)
        (inner / MADE).write_text(json_text({file.name: file_sha256(file) for file in files_of(inner)}))

    unfinished.made_once(folder, sealed)
    _check_made(folder)
    return folder


def _check_made(folder: Path) -> None:
    """Raise `Refusal` for a file that is not what its digest says; folders made by version 0.6 have no digests."""
    if not (folder / MADE).is_file():
        return
    allowed, remedy = "the file as it was made", f"delete {folder}; it will be made again"
    with reading(folder / MADE, allowed, remedy):
        made = kept_json(folder / MADE)
    for name, digest in made.items():
        with reading(folder / name, allowed, remedy):
            if sha256_of(folder / name) != digest:
                raise ValueError("damaged")


def files_of(folder: Path) -> list[Path]:
    """The files in a folder, sorted."""
    return sorted(file for file in folder.iterdir() if file.is_file())


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, remembered."""
    return str(facts_of("sha256", [file], lambda: {"sha256": file_sha256(file)})["sha256"])


def check_space(folder: Path, needed: int) -> None:
    """Raise `Refusal` if the file system that `folder` will be on has fewer than `needed` free bytes."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        got = f"{existing} ({free / 1e9:.2f} GB free)"
        raise Refusal(got, f"{needed / 1e9:.2f} GB for {folder.name}", "free space, or set NFA_CACHE to another folder")
