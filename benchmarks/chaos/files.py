"""What lies in folders: names, weights, half files, and places where a password shows."""

import base64
import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

USER, MARK = "tester", "Xq7marked"
PASSWORD = f"{MARK}/9@:"  # so that an address has to quote it
SIGNS = tuple(text.encode() for text in (MARK, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()))
_DRAWN = re.compile(r"[0-9a-f]{32}|(?<=tmp)[a-z0-9_]{8}")  # ids of runs, names of temporary files
_ENDINGS = {".png": b"IEND\xaeB`\x82", ".pdf": b"%%EOF"}


def tree(folder: Path) -> set[str]:
    """Files and empty folders, without what is drawn at random in their names."""
    found = (path for path in folder.rglob("*") if not path.is_dir() or not any(path.iterdir()))
    return {_DRAWN.sub("*", path.relative_to(folder).as_posix()) for path in found}


def weights(artifacts: Path) -> dict[str, str]:
    """A digest of the tensors of each checkpoint."""
    files = sorted(artifacts.glob("checkpoints/*.safetensors"))
    return {file.name: _digest(file) for file in files if not is_half(file)}


def _digest(file: Path) -> str:
    content = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        content.update(name.encode() + str(tensor.dtype).encode() + tensor.tobytes())
    return content.hexdigest()


def half_files(folder: Path) -> list[str]:
    """Files that end before their end."""
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file() and is_half(path)]


def is_half(file: Path) -> bool:
    """Whether a file is cut off, as far as its kind tells."""
    try:
        if file.suffix == ".safetensors":
            load_file(file)
        elif file.suffix == ".pt":
            return not zipfile.is_zipfile(file) or zipfile.ZipFile(file).testzip() is not None
        elif file.suffix == ".json":
            json.loads(file.read_bytes())
        elif file.suffix in _ENDINGS:
            return not file.read_bytes().rstrip().endswith(_ENDINGS[file.suffix])
    except (SafetensorError, ValueError, zipfile.BadZipFile):
        return True
    return False


def leaks(folder: Path) -> Iterator[str]:
    """Files with the marked password in them, or in their names."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if is_leak(name.encode()) or (path.is_file() and is_leak(path.read_bytes())):
            yield name


def is_leak(content: bytes) -> bool:
    """Whether the marked password shows."""
    return any(sign in content for sign in SIGNS)
