"""Layers of a base model as its files tell, before torch or transformers are loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nfa.registry.families.language.base import files, gguf_files
from nfa.registry.families.language.base.model_names import place
from nfa.registry.families.language.base.tiny_settings import TinySettings
from nfa.registry.families.language.fitting import Sides, fitting
from nfa.registry.wrapped_names import COMPILED

OUTPUT = "lm_head"  # of models whose weights do not hold it, because it is tied to the embedding
EMBEDDINGS = ("token_embd", "embed_tokens", "wte", "wpe", "embed_in", "word_embeddings")
ALIKE = ("llama", "mistral", "qwen2", "qwen3")  # architectures of GGUF files whose layers have these names:
OF_GGUF = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def known_layers(name: str) -> Sides | None:
    """Sides of the matrices that may be linear layers, by path; None if only transformers can tell.

    That is so for hub ids, for models with experts, which are stored otherwise than they are in memory, and for GGUF
    files of other architectures than Llama's kin. Raises `Refusal` for a name, folder or file that is no base model.
    """
    kind, path = place(name)
    if kind == "tiny":
        return TinySettings().shapes()
    if path is None:
        return None
    return _of_gguf(path) if kind == "gguf" else _of_folder(path)


def targeted(layers: Sides, targets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the layers whose paths end with a target; raise `Refusal` for a target without a match."""
    return {name: layers[name] for name in fitting([*layers, OUTPUT], targets) if name in layers}


def _of_folder(folder: Path) -> Sides | None:
    described = files.configuration(folder)
    tensors = files.entries(files.weight_files(folder))
    if any("expert" in key for key in (*described, *tensors)):
        return None
    return _matrices({name: entry.shape for name, entry in tensors.items()})


def _of_gguf(file: Path) -> Sides | None:
    header = gguf_files.read_header(file)
    if header.architecture not in ALIKE or any("exps" in name for name in header.shapes):
        return None
    return _matrices({_renamed(name): shape[::-1] for name, shape in header.shapes.items()})


def _renamed(name: str) -> str:
    """`blk.3.attn_q.weight` as transformers calls it; other names stay."""
    start, _, rest = name.partition(".")
    block, _, layer = rest.removesuffix(".weight").partition(".")
    return f"model.layers.{block}.{OF_GGUF[layer]}.weight" if start == "blk" and layer in OF_GGUF else name


def _matrices(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    plain = {name.replace(COMPILED, ""): shape for name, shape in shapes.items()}
    found = {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in plain.items()
        if name.endswith(".weight") and len(shape) == 2
    }
    return {name: shape for name, shape in found.items() if name.rpartition(".")[2] not in EMBEDDINGS}
