"""The factors of a run of lora_svd, as the start of an adapter."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nfa.errors import Refusal
from nfa.registry import tracking
from nfa.registry.families.language.adapters import Adapter
from nfa.registry.families.language.base.models import BaseModel
from nfa.registry.families.language.config import TrainLoraConfig

FILE = re.compile(r"svd_factors_rank([0-9]+)\.safetensors")


@dataclass(frozen=True)
class StartFactors:
    """An adapter at step 0, and the description of its source run."""

    run_id: str
    adapter: Adapter
    facts: Mapping[str, Any]


def factors_of(config: TrainLoraConfig, base: BaseModel) -> StartFactors | None:
    """Return the factors that `config.factors` names, scaled to the adapter's alpha; None for other inits.

    Raises `Refusal` for a run without factors, and for those of another base model or rank.
    """
    if config.init != "svd":
        return None
    run_id = tracking.find_run(config.factors).info.run_id
    path = _path(run_id, config)
    tensors, stated = tracking.get_tensors(run_id, path)
    with tracking.reading_of(run_id, path):
        if stated["base_digest"] != base.digest:
            got = f"factors={config.factors}, made for {stated['base_name']} ({stated['base_digest'][:12]})"
            allowed = f"factors of {base.name} ({base.digest[:12]})"
            raise Refusal(got, allowed, "use the base_model of the factors, or other factors")
        change = (float(stated["alpha"]) / int(stated["rank"]) / (config.alpha / config.rank)) ** 0.5
        adapter = {name: tensor * change for name, tensor in tensors.items()}
        return StartFactors(run_id, adapter, {"run_id": run_id, **stated, "init_flops": float(stated["init_flops"])})


def _path(run_id: str, config: TrainLoraConfig) -> str:
    found = {int(match[1]): match[0] for match in map(FILE.fullmatch, tracking.files(run_id)) if match}
    if not found:
        got = f"factors={config.factors} (it holds no factors)"
        raise Refusal(got, "a run of lora_svd", "mlflow run . -e lora_svd")
    if config.rank not in found:
        held = ", ".join(map(str, sorted(found)))
        got = f"factors={config.factors} of rank {held} with rank={config.rank}"
        raise Refusal(got, f"rank {held}", f"rank={max(found)}")
    return found[config.rank]
