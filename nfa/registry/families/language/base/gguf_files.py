"""GGUF files: their header, and their conversion to a folder of safetensors, once."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from nfa.console import stage
from nfa.errors import Refusal, reading
from nfa.registry.families.language.base import files
from nfa.registry.families.language.base.quiet import quiet
from nfa.registry.folders import cache_folder

ALLOWED = "a GGUF file, version 2 or 3, of a language model that transformers can read"


class Header(NamedTuple):
    """The architecture, and the shapes of all tensors by name, innermost dimension first."""

    architecture: str
    shapes: dict[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(map(math.prod, self.shapes.values()))


def read_header(file: Path) -> Header:
    """Read architecture and shapes of the weights; raise `Refusal` for a file that is not GGUF or is incomplete."""
    import numpy as np

    from nfa.registry.families.language.base.gguf_reader import BoundedReader

    remedy = "the file is damaged or not a GGUF file; download it again"
    with reading(file, ALLOWED, remedy), np.errstate(over="raise"):  # a damaged offset must not begin anew at zero
        reader = BoundedReader(file)
        empty = next((tensor.name for tensor in reader.tensors if not tensor.n_elements), None)
        if not reader.tensors or empty is not None:
            raise ValueError(f"no numbers in {empty or 'the file'}")
        architecture = reader.get_field("general.architecture")
        shapes = {tensor.name: tuple(map(int, tensor.shape)) for tensor in reader.tensors}
        return Header(str(architecture.contents() if architecture else "") or "unknown", shapes)


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
    stage("base model", f"converting {file.name} to {folder} ({needed / 1e9:.2f} GB); done once, 20–30 s per 100 MB")
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
