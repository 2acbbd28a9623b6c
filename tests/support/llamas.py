"""Very small random Llamas, saved as folders and as a GGUF file."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM

from nfa import seeding
from nfa.registry.families.language.base import tiny
from nfa.registry.families.language.base.tiny_settings import TinySettings

SETTINGS = TinySettings(hidden=16, layers=1, heads=2, key_value_heads=1, intermediate=24)
QUERY = "model.layers.0.self_attn.q_proj.weight"


def llama(seed: int = 0, settings: TinySettings = SETTINGS) -> LlamaForCausalLM:
    with seeding.untouched():
        torch.manual_seed(seed)
        model = tiny.untrained(settings)
        assert isinstance(model, LlamaForCausalLM)
        return model


def saved(folder: Path, model: Any = None, **options: Any) -> Path:
    """A folder of a model (a random Llama), with the tokenizer of bytes."""
    (llama() if model is None else model).save_pretrained(folder, **options)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def gguf(file: Path, model: LlamaForCausalLM) -> Path:
    """The same model as a GGUF file in float32, with a vocabulary of bytes."""
    from gguf import GGUFWriter, TokenType

    config: Any = model.config
    writer = GGUFWriter(file, "llama")
    writer.add_name("small")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    bytes_of = tiny.tokenizer().convert_ids_to_tokens([*range(3, tiny.VOCABULARY)])
    tokens = ["<|endoftext|>", "</s>", "th", *bytes_of]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if place < 2 else TokenType.NORMAL for place in range(len(tokens))])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(tiny.EOS)
    writer.add_bos_token_id(tiny.EOS)
    writer.add_pad_token_id(tiny.PAD)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(_name(name), _rows(name, tensor.numpy(), config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _name(name: str) -> str:
    from gguf import MODEL_ARCH, get_tensor_name_map

    stem, suffix = name.rsplit(".", 1)
    return f"{get_tensor_name_map(MODEL_ARCH.LLAMA, 8).get_name(stem)}.{suffix}"


def _rows(name: str, weight: np.ndarray, config: Any) -> np.ndarray:
    """The format turns pairs of neighbouring rows, not of halves, by an angle."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for part, count in heads.items():
        if part in name:
            halves = weight.reshape(count, 2, len(weight) // count // 2, -1)
            return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))
    return weight
