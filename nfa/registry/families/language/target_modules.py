"""Linear layers of a base model that an adapter would sit on, without loading the model."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from nfa import seeding
from nfa.registry.families.language.adapters import matching_modules
from nfa.registry.families.language.base.models import BaseModel
from nfa.registry.families.language.base.quiet import quiet


class Target(NamedTuple):
    """A linear layer y = W x: [o, i], and whether its weight is stored as [i, o] (Conv1D of GPT-2)."""

    shape: tuple[int, int]
    transposed: bool


@lru_cache(maxsize=8)  # trials of a study differ in other things
def target_modules(base: BaseModel, targets: tuple[str, ...]) -> Mapping[str, Target]:
    """Layers by path that a target is the end of, the ones that train_lora adapts; `Refusal` for one that fits none."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with quiet(), seeding.untouched(), torch.device("meta"):
        config = AutoConfig.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)
        build: Callable[..., torch.nn.Module] = AutoModelForCausalLM.from_config
        model = build(config, trust_remote_code=False)
    return {name: _target(layer) for name, layer in matching_modules(model, targets).items()}


def _target(layer: Any) -> Target:
    first, second = layer.weight.shape
    transposed = not isinstance(layer, torch.nn.Linear)
    return Target((second, first) if transposed else (first, second), transposed)
