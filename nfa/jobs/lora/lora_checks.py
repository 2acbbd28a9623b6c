"""What an adapter needs of a base model's layers, checked before a run is opened."""

from collections.abc import Mapping

from nfa.config import TrainLoraConfig
from nfa.config.lora import RESIDUAL
from nfa.errors import Refusal
from nfa.lora.adapters import A, Adapter, B, check_fits
from nfa.lora.base_models import BaseModel
from nfa.lora.target_modules import Target, target_modules


def check_targets(config: TrainLoraConfig, base: BaseModel, initial: Adapter | None) -> None:
    """`Refusal` for targets that the base lacks, an init that cannot be made for them, and factors of others."""
    targets = target_modules(base, config.target_list)
    if initial is not None:
        sides = {name: target.shape for name, target in targets.items()}
        check_fits(initial, _factor_shapes(sides, config.rank))
    elif config.init in RESIDUAL:
        _check_parts_of_weights(config, targets)
    elif config.init == "orthogonal" and config.rank % 2:
        raise Refusal(f"init=orthogonal with rank={config.rank}", "an even rank", f"rank={config.rank + 1}")


def _factor_shapes(sides: Mapping[str, tuple[int, int]], rank: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for name, (o, i) in sides.items():
        found |= {f"{name}.{A}": (rank, i), f"{name}.{B}": (o, rank)}
    return found


def _check_parts_of_weights(config: TrainLoraConfig, targets: Mapping[str, Target]) -> None:
    name, smallest = min(((name, min(target.shape)) for name, target in targets.items()), key=lambda each: each[1])
    if config.rank > smallest:
        got = f"init={config.init} with rank={config.rank}, more than {name} has ({smallest})"
        raise Refusal(got, f"a rank up to {smallest}: the adapter is a part of the weights", f"rank={smallest}")
    if config.init == "olora" and any(target.transposed for target in targets.values()):
        got = f"init=olora for base_model={config.base_model}, whose layers are Conv1D"
        raise Refusal(got, "Linear layers, which PEFT's OLoRA knows", "init=pissa")
