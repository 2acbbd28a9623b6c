"""A network fine-tuned by adapters of PEFT: LoRA on a Llama, and each of its relatives on a network of two layers."""

from typing import Any

import torch
import torch.nn as nn

from nfa.workloads.probe import Probe
from tests.support.models.text import LLAMA, WORDS
from tests.support.models.workloads import EXAMPLES, classifier, language, normal
from tests.support.toy_models import layers, seeded


def lora() -> Probe:
    """LoRA on the queries and values of a Llama, with dropout."""
    import peft
    from transformers import LlamaConfig, LlamaForCausalLM

    def build() -> nn.Module:
        options: dict[str, Any] = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.2, "init_lora_weights": False}
        config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **options)
        return peft.get_peft_model(LlamaForCausalLM(LlamaConfig(**LLAMA)), config)

    return language(seeded(build), WORDS)


def adapted(kind: str, **options: Any) -> Probe:
    """Two layers with an adapter each, as it is after some training, and a readout without one."""
    import peft

    def build() -> nn.Module:
        network = layers(4, 6, 5, 3)
        model: nn.Module = peft.get_peft_model(network, getattr(peft, kind)(target_modules=["0", "2"], **options))
        with torch.no_grad():
            for weight in [weight for weight in model.parameters() if weight.requires_grad]:
                weight.add_(0.3 * torch.randn_like(weight))
        return model

    return classifier(seeded(build), normal(EXAMPLES, 4), 3)


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "DoRA": ("LoraConfig", {"r": 2, "use_dora": True}),
    "IA3": ("IA3Config", {"feedforward_modules": ["2"]}),
    "AdaLoRA": ("AdaLoraConfig", {"init_r": 3, "target_r": 2, "total_step": 10}),
    "LoHa": ("LoHaConfig", {"r": 2}),
    "LoKr": ("LoKrConfig", {"r": 2}),
}
