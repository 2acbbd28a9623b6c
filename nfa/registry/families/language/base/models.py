"""Base models for fine-tuning: found by name, loaded completely, or read tensor by tensor.

Every base model ends up as a folder of safetensors with configuration and tokenizer.
"""

import difflib
import importlib.metadata
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nfa import seeding
from nfa.errors import Refusal, reading
from nfa.registry.families.language.base import files as base_files
from nfa.registry.families.language.base import gguf_files, hub, tiny
from nfa.registry.families.language.base.files import Entry
from nfa.registry.families.language.base.model_names import KNOWN, place
from nfa.registry.families.language.base.quiet import quiet
from nfa.registry.families.language.tensor_files import tensors_of
from nfa.registry.wrapped_names import COMPILED, WRAPPERS, is_count, unwrapped

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class BaseModel:
    """A causal language model: its name, folder, SHA-256 of its weights, and number of distinct parameters.

    `name` finds it again from any folder: local paths are absolute.
    """

    name: str
    folder: Path
    digest: str
    parameters: int


def find_base(name: str) -> BaseModel:
    """The base model of a name: `tiny`, `smollm2`, a folder, a GGUF file, or a hub id `owner/name`.

    `tiny` is trained (5–10 s) and a GGUF file converted (20–30 s for 100 MB) the first time, both into the cache.
    `Refusal` for unknown names, weights that are missing, quantised or in pickle files, models that are no causal
    language models, missing tokenizers, and hub ids that cannot be fetched.
    """
    kind, path = place(name)
    if kind == "tiny":
        path = tiny.folder()
    elif kind == "hub":
        path = hub.snapshot(name)
    assert path is not None
    full = name if kind in ("tiny", "hub") or name in KNOWN else str(path)
    folder = gguf_files.converted(path) if kind == "gguf" else path
    base_files.configuration(folder)
    tensors = base_files.entries(base_files.weight_files(folder))
    with reading(folder, base_files.CONTENTS, "download the model's files again"):
        files = base_files.files_of(folder)
        version = importlib.metadata.version("transformers")
        facts = base_files.facts_of(f"facts transformers {version}", files, lambda: _facts(folder, tensors))
    return BaseModel(full, folder, facts["weights"], facts["parameters"])


def load_model(base: BaseModel, dtype: torch.dtype = torch.float32) -> "PreTrainedModel":
    """The model in `dtype`, whatever it is stored in, in eval mode, without a cache of keys and values.

    Random numbers, warnings and progress bars are as before. Raises `Refusal` if a parameter has no stored weights.
    """
    from transformers import AutoModelForCausalLM

    load: Callable[..., Any] = AutoModelForCausalLM.from_pretrained
    stored = _wrapping(base.folder)
    fits = reading(base.folder, "weights that belong to config.json", "download the model's files again")
    with fits, quiet(), seeding.untouched():
        model, info = load(
            base.folder,
            key_mapping=stored,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    if info["missing_keys"]:
        raise _without_weights(base.folder, sorted(info["missing_keys"]))
    model.config.use_cache = False
    found: PreTrainedModel = model.eval()
    return found


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a base model, from its folder only."""
    from transformers import AutoTokenizer

    load: Callable[..., PreTrainedTokenizerBase] = AutoTokenizer.from_pretrained
    remedy = "put the model's tokenizer files (tokenizer.json, tokenizer_config.json, …) there"
    with reading(f"the tokenizer of {folder}", base_files.CONTENTS, remedy), quiet():
        found = load(folder, local_files_only=True, trust_remote_code=False)
        if len(found) <= len(found.all_special_ids):
            raise ValueError("no vocabulary")
        return found


def weight_of(base: BaseModel, name: str) -> Tensor:
    """A weight in float32 by the model's parameter name; a tied one is found under each of its names.

    Raises `Refusal` for a name that the model does not have.
    """
    tensors = base_files.entries(base_files.weight_files(base.folder))
    stored = {own: own for own in tensors}
    if name not in stored:
        stored |= _stored_names(_skeleton(base.folder, tensors), tensors)
    if name not in stored:
        near = difflib.get_close_matches(name, stored, n=3) or list(stored)[:3]
        got = f"weights {name} of base_model={base.name}"
        raise Refusal(got, f"its {len(stored)} parameter names", f"did you mean {', '.join(near)}?")
    (found,) = tensors_of(tensors[stored[name]].file, stored[name])
    return found.to(torch.float32)


def _facts(folder: Path, tensors: Mapping[str, Entry]) -> dict[str, Any]:
    """Return facts found by building the model without weights and by reading all weights."""
    model = _skeleton(folder, tensors)
    embedding = model.get_input_embeddings()
    assert isinstance(embedding.weight, Tensor)
    if not _renames(model):
        _check_weights(folder, model, tensors)
    # Added tokens may lie outside: some models have one for pictures that they never see.
    tokens, rows = load_tokenizer(folder).vocab_size, embedding.weight.shape[0]
    if tokens > rows:
        got = f"{folder} ({tokens} tokens in its tokenizer, {rows} in its embedding)"
        raise Refusal(got, "a tokenizer of this model", "put the model's own tokenizer files there")
    return {"weights": base_files.digest(tensors), "parameters": sum(weight.numel() for weight in model.parameters())}


def _skeleton(folder: Path, tensors: Mapping[str, Entry]) -> "PreTrainedModel":
    """Return the model on the meta device, without memory; raise `Refusal` if it is not a causal language model."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    remedy = "choose a text-generation model without custom code, or smollm2 or tiny"
    known = reading(folder / "config.json", "a causal language model known to transformers", remedy)
    with known, quiet(), seeding.untouched(), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not causal & {*(config.architectures or causal)}:
            raise ValueError(f"architecture {', '.join(config.architectures)}")
        if config.get_text_config().num_hidden_layers > len(tensors):  # to avoid building a huge model
            raise ValueError(f"more layers than the {len(tensors)} tensors of its weights")
        build: Callable[..., PreTrainedModel] = AutoModelForCausalLM.from_config
        return build(config, trust_remote_code=False)


def _renames(model: "PreTrainedModel") -> bool:
    """Return whether transformers stores this model with other names or shapes than in memory (fused experts)."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    mapping: Callable[[str], Any] = get_checkpoint_conversion_mapping
    return bool(mapping(model.config.model_type))


def _stored_names(model: "PreTrainedModel", tensors: Mapping[str, Entry]) -> dict[str, str]:
    """Name in the files by each parameter name: tied ones share theirs, and the base model's prefix may be missing.

    What wrapped the model when it was stored (`module.`, …) does not count.
    """
    prefix = f"{model.base_model_prefix}."
    stored: dict[int, str] = {}
    plain = {other: name for name in tensors for other in unwrapped(name)} | {name: name for name in tensors}
    parameters = list(model.named_parameters(remove_duplicate=False))
    for name, parameter in parameters:
        for other in (name, name.removeprefix(prefix)):
            if other in plain:
                stored.setdefault(id(parameter), plain[other])
    return {name: stored[id(parameter)] for name, parameter in parameters if id(parameter) in stored}


def _check_weights(folder: Path, model: "PreTrainedModel", tensors: Mapping[str, Entry]) -> None:
    stored = _stored_names(model, tensors)
    parameters = dict(model.named_parameters())
    missing = sorted(parameters.keys() - stored.keys())
    if missing:
        raise _without_weights(folder, missing)
    for name, parameter in parameters.items():
        shape, expected = tensors[stored[name]].shape, tuple(parameter.shape)
        if shape != expected:
            got = f"{folder} ({name} is {list(shape)}, by config.json {list(expected)})"
            raise Refusal(got, "weights that belong to config.json", "download the model's files again")


def _wrapping(folder: Path) -> dict[str, str] | None:
    """Return prefixes to remove from names in the files before transformers reads them, or None."""
    tensors = base_files.entries(base_files.weight_files(folder))
    compiled = any(COMPILED in name for name in tensors)
    if not compiled and not all(name.startswith(WRAPPERS) or is_count(name) for name in tensors):
        return None
    stored = _stored_names(_skeleton(folder, tensors), tensors)
    whole = {own: name.replace(COMPILED, "") for own, name in stored.items()}
    around = {name.removesuffix(own) for own, name in whole.items() if name.endswith(own)} - {""}
    found = {re.escape(COMPILED): ""} if compiled else {}
    return found | {f"^{re.escape(wrapper)}": "" for wrapper in sorted(around)} or None


def _without_weights(folder: Path, missing: Sequence[str]) -> Refusal:
    got = f"{folder} (no weights for {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''})"
    return Refusal(got, "a folder with weights for every parameter", "pass the folder that save_pretrained wrote")
