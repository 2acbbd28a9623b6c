"""Models of texts, each from a small configuration of transformers: GPT-2, Llama, BERT, T5, Mixtral."""

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nfa.reference.linear_twin import Inside, linear_twin
from nfa.workloads.probe import Probe
from tests.support.models.workloads import (
    EXAMPLES,
    LENGTHS,
    Padded,
    cross_entropy,
    language,
    mask_of,
    padded_language,
    texts,
    whole,
)
from tests.support.toy_models import seeded

WORDS = 7


def gpt2(longest: int = 5, **options: Any) -> Padded:
    """GPT-2 on 5, 3, 2 and 4 tokens; its readout is the embedding."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes: dict[str, Any] = {
        "n_embd": 8,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 16,
        "initializer_range": 0.3,
        "pad_token_id": 0,
    }
    config = GPT2Config(vocab_size=WORDS, bos_token_id=1, eos_token_id=1, **sizes, **options)
    return padded_language(seeded(GPT2LMHeadModel, config), WORDS, longest)


LLAMA: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 16,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}


def llama() -> Probe:
    """Llama on four tokens an example."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return language(seeded(LlamaForCausalLM, LlamaConfig(**LLAMA)), WORDS)


def bert() -> Padded:
    """A classifier of texts of 5, 3, 2 and 4 tokens, which sees none of the padding."""
    from transformers import BertConfig, BertForSequenceClassification

    labels: dict[str, Any] = {"num_labels": 3}
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=8,
        initializer_range=0.3,
        **labels,
    )
    present = mask_of(LENGTHS, 5)
    tokens = texts(WORDS, len(LENGTHS), 5).masked_fill(~present, 0)
    inputs = {"input_ids": tokens, "attention_mask": present.long()}
    network = seeded(BertForSequenceClassification, config)
    return Padded(Probe(network, cross_entropy, inputs, whole(3, len(LENGTHS))), present)


def t5() -> Probe:
    """An encoder of five tokens and a decoder of three."""
    from transformers import T5Config, T5ForConditionalGeneration

    start: dict[str, Any] = {"decoder_start_token_id": 0}
    config = T5Config(
        vocab_size=WORDS,
        d_model=8,
        d_kv=4,
        d_ff=12,
        num_layers=1,
        num_decoder_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        initializer_factor=1.0,
        **start,
    )
    inputs = {"input_ids": whole(WORDS, EXAMPLES, 5), "decoder_input_ids": whole(WORDS, EXAMPLES, 3, seed=3)}
    inputs["attention_mask"] = torch.ones(EXAMPLES, 5, dtype=torch.int64)
    inputs["decoder_attention_mask"] = torch.ones(EXAMPLES, 3, dtype=torch.int64)
    return Probe(seeded(T5ForConditionalGeneration, config), translated, inputs, whole(WORDS, EXAMPLES, 3, seed=4))


def translated(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean over the tokens."""
    return nn.functional.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").mean(dim=1)


def mixtral() -> Probe:
    """Four experts, two for each token."""
    from transformers import MixtralConfig, MixtralForCausalLM

    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "experts_implementation": "eager"}
    config = MixtralConfig(**{**LLAMA, "num_hidden_layers": 1, **experts})
    return language(seeded(MixtralForCausalLM, config), WORDS)


def mixtral_twin(model: nn.Module) -> nn.Module:
    """With an nn.Linear for each slice of an expert's parameter and for the router."""
    twin = linear_twin(model)
    for block in [module for module in twin.modules() if type(module).__name__ == "MixtralSparseMoeBlock"]:
        block.experts, block.gate = _Experts(block.experts), _Router(block.gate)
    return twin


def _linear(weight: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone())
    return linear


class _Router(Inside):
    def __init__(self, router: Any) -> None:
        super().__init__()
        self.chosen = router.top_k
        self.linear = _linear(router.weight)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.linear(hidden.flatten(0, -2))
        values, places = torch.softmax(logits.float(), dim=-1).topk(self.chosen, dim=-1)
        return logits, values / values.sum(dim=-1, keepdim=True), places


class _Experts(nn.Module):
    """Each token goes through its experts one after the other."""

    def __init__(self, experts: Any) -> None:
        super().__init__()
        self.act = experts.act_fn
        self.gate_up_proj = nn.ModuleList(map(_linear, experts.gate_up_proj))
        self.down_proj = nn.ModuleList(map(_linear, experts.down_proj))

    def forward(self, hidden: Tensor, places: Tensor, shares: Tensor) -> Tensor:
        rows = []
        for token, chosen, weights in zip(hidden, places.tolist(), shares, strict=True):
            parts = []
            for expert, weight in zip(chosen, weights, strict=True):
                gate, up = self.gate_up_proj[expert](token).chunk(2)
                parts.append(weight * self.down_proj[expert](self.act(gate) * up))
            rows.append(sum(parts))
        return torch.stack(rows).to(hidden.dtype)
