"""Linear layers of a base model that an adapter would sit on, without loading the model."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from nfa import seeding
from nfa.errors import Refusal
from nfa.registry.families.language.adapters import A, Adapter, B, check_fits, matching_modules
from nfa.registry.families.language.base.models import BaseModel
from nfa.registry.families.language.base.quiet import quiet
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.language.fitting import check_rank


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


def check_targets(config: TrainLoraConfig, base: BaseModel, initial: Adapter | None) -> dict[str, tuple[int, int]]:
    """Sides of the targets by path; raise `Refusal` for targets that the base lacks, and an init that fits them not.

    `initial` are factors that were made for some.
    """
    targets = target_modules(base, tuple(config.target_list))
    sides = {name: target.shape for name, target in targets.items()}
    if initial is not None:
        check_fits(initial, _factor_shapes(sides, config.rank))
        return sides
    check_rank(config, sides)
    if config.init == "olora" and any(target.transposed for target in targets.values()):
        got = f"init=olora for base_model={config.base_model}, whose layers are Conv1D"
        raise Refusal(got, "Linear layers, which PEFT's OLoRA supports", "init=pissa")
    return sides


def _factor_shapes(sides: Mapping[str, tuple[int, int]], rank: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for name, (o, i) in sides.items():
        found |= {f"{name}.{A}": (rank, i), f"{name}.{B}": (o, rank)}
    return found
