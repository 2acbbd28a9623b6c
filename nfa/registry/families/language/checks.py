"""What an adapter needs of a base model's layers, checked before a run is opened."""

from collections.abc import Mapping

from nfa.errors import Refusal
from nfa.registry.families.language.adapters import A, Adapter, B, check_fits
from nfa.registry.families.language.base.models import BaseModel
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.language.fitting import check_rank
from nfa.registry.families.language.target_modules import target_modules


def check_targets(config: TrainLoraConfig, base: BaseModel, initial: Adapter | None) -> dict[str, tuple[int, int]]:
    """Sides of the targets by path; `Refusal` for targets that the base lacks, and an init that fits them not.

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
        raise Refusal(got, "Linear layers, which PEFT's OLoRA knows", "init=pissa")
    return sides


def _factor_shapes(sides: Mapping[str, tuple[int, int]], rank: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for name, (o, i) in sides.items():
        found |= {f"{name}.{A}": (rank, i), f"{name}.{B}": (o, rank)}
    return found
