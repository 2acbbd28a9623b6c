"""LoRA adapters on a language model, through PEFT: create, read, write, subtract from the base, save.

An adapter maps `<module>.lora_A.weight` to A [r i] and `<module>.lora_B.weight` to B [o r], with base-model paths.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from safetensors.torch import save_file
from torch import Tensor

from nfa.errors import Refusal
from nfa.registry.families.language.base.quiet import quiet
from nfa.registry.families.language.config import RESIDUAL
from nfa.registry.families.language.fitting import fitting
from nfa.seeding import untouched

Adapter = Mapping[str, Tensor]
PREFIX = "base_model.model."  # PEFT's prefix of paths in the base model
PEFT_INITS: dict[str, bool | str] = {"random": True}  # other names are passed to PEFT unchanged
SHOWN = 8  # most names in a message
A, B = "lora_A.weight", "lora_B.weight"


def matching_modules(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Module]:
    """Return the linear layers, by path, whose path ends with a target.

    Raises `Refusal` for a target without a matching layer, and for one whose weights are tied to another module's.
    """
    linear = {name: layer for name, layer in model.named_modules() if _is_linear(layer)}
    found = {name: linear[name] for name in fitting(linear, targets)}
    _check_own_weights(model, found)
    return found


def _check_own_weights(model: nn.Module, found: Mapping[str, Any]) -> None:
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    for name, layer in found.items():
        if uses[id(layer.weight)] > 1:
            got = f"targets={name!r}, whose weights are tied to another module's"
            raise Refusal(got, "modules whose weights are not tied", f"targets without {name.rpartition('.')[2]}")


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"


def add_adapter(
    model: nn.Module, targets: Sequence[str], *, rank: int, alpha: float, dropout: float, init: str, seed: int
) -> nn.Module:
    """Add a LoRA layer at every matching module; weights and global generators are unchanged.

    `init` is random (A uniform, B zero) or one of PEFT's names. What pissa and olora take from the weights is not yet
    subtracted from them; see `take_out`.
    """
    from peft import LoraConfig, get_peft_model

    layers = matching_modules(model, targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type] # a fraction is as good
        lora_dropout=dropout,
        target_modules=list(targets),
        init_lora_weights=PEFT_INITS.get(init, init),  # type: ignore[arg-type]
        task_type="CAUSAL_LM",
    )
    with untouched(), quiet(), _kept(layers.values() if init in RESIDUAL else ()):
        torch.manual_seed(seed)
        adapted: nn.Module = get_peft_model(model, config)
    for layer in adapted_modules(adapted).values():
        if layer.get_base_layer().weight.dtype == torch.float64:
            layer.lora_A.double(), layer.lora_B.double()
    return adapted


@contextmanager
def _kept(layers: Iterable[Any]) -> Iterator[None]:
    """Convert weights to float32 within the block, and restore them afterwards."""
    before = {layer: layer.weight.data for layer in layers}
    for layer, weight in before.items():
        layer.weight.data = weight.float() if weight.dtype == torch.float64 else weight.clone()
    yield
    for layer, weight in before.items():
        layer.weight.data = weight


def adapted_modules(model: nn.Module) -> dict[str, Any]:
    """Return PEFT's LoRA layers by their path in the base model."""
    found = {}
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A") and hasattr(layer, "get_delta_weight"):
            found[name.removeprefix(PREFIX)] = layer
    return found


def narrower(model: nn.Module, rank: int) -> dict[str, int]:
    """Return the modules whose update can have fewer directions than `rank`, with their largest possible rank."""
    most = {
        name: min(len(layer.lora_A["default"].weight), *layer.get_base_layer().weight.shape)
        for name, layer in adapted_modules(model).items()
    }
    return {name: directions for name, directions in most.items() if directions < rank}


def own_dropout(model: nn.Module) -> dict[str, float]:
    """Return the nonzero dropout rates of the base model itself, by module name."""
    found: dict[str, float] = {}
    for path, module in model.named_modules():
        if "lora_dropout" not in path:
            name = path.rpartition(".")[2]
            known = {name: module.p} if isinstance(module, nn.Dropout) else vars(module)
            found |= {key: value for key, value in known.items() if isinstance(value, float) and _drops(key, value)}
    return dict(sorted(found.items()))


def _drops(name: str, share: float) -> bool:
    return "drop" in name and share > 0


def read_adapter(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the model's adapter."""
    return {name: weight.detach().cpu().clone() for name, weight in _factors(model).items()}


def _factors(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.{part}": factor["default"].weight
        for name, layer in adapted_modules(model).items()
        for part, factor in ((A, layer.lora_A), (B, layer.lora_B))
    }


def write_adapter(model: nn.Module, adapter: Adapter) -> None:
    """Load an adapter into the model; raise `Refusal` unless it has factors for exactly the adapted modules."""
    own = _factors(model)
    check_fits(adapter, {name: tuple(weight.shape) for name, weight in own.items()})
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(adapter[name])


def check_fits(adapter: Adapter, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `Refusal` unless the adapter has exactly the expected factors, by name and shape."""
    if wanted.keys() != adapter.keys():
        without, unused = _modules(wanted.keys() - adapter.keys()), _modules(adapter.keys() - wanted.keys())
        got = f"factors that do not match: targets without factors: {without}; factors without a target: {unused}"
        allowed = "two factors for each target, and no others"
        raise Refusal(got, allowed, "use the targets that the factors were made for")
    for name, shape in wanted.items():
        if adapter[name].shape != shape:
            got = f"{name} with shape {list(adapter[name].shape)}"
            raise Refusal(got, f"shape {list(shape)}", "use factors of the same base model and rank")


def _modules(keys: Set[str]) -> str:
    return listed({key.rpartition(".lora_")[0] for key in keys})


def listed(names: Set[str]) -> str:
    """Return the first names and the total number, for a message."""
    shown = ", ".join(sorted(names)[:SHOWN]) or "none"
    return shown + (f" … ({len(names)})" if len(names) > SHOWN else "")


def take_out(model: nn.Module) -> None:
    """Subtract (alpha/r) B A from W in every adapted module, so that the model equals the one without an adapter."""
    with torch.no_grad():
        for layer in adapted_modules(model).values():
            weight = layer.get_base_layer().weight
            weight -= layer.get_delta_weight("default").to(weight)


def put_in(model: nn.Module, adapter: Adapter, scaling: float) -> None:
    """Add (alpha/r) B A to the weights W of the plain model."""
    layers = dict(model.named_modules())
    with torch.no_grad():
        for key in adapter:
            if key.endswith(A):
                name = key.removesuffix(f".{A}")
                weight = layers[name].weight
                update = scaling * adapter[f"{name}.{B}"].to(weight) @ adapter[key].to(weight)
                weight += update if isinstance(layers[name], nn.Linear) else update.T  # Conv1D stores the transpose


def over_pristine(adapter: Adapter, initial: Adapter | None) -> dict[str, Tensor]:
    """Return the adapter relative to the published base: B A − B₀ A₀ as one product of twice the rank.

    `initial` is (B₀, A₀), which was subtracted from the base; None if nothing was.
    """
    if initial is None:
        return dict(adapter)
    joined = {}
    for key, now in adapter.items():
        start = initial[key].to(now)
        joined[key] = torch.cat([now, start]) if key.endswith(A) else torch.cat([now, -start], dim=1)
    return joined


def save_adapter(folder: Path, adapter: Adapter, *, scaling: float, targets: Sequence[str], base: str) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`, which PeftModel.from_pretrained reads."""
    from peft import LoraConfig

    rank = next(len(tensor) for key, tensor in adapter.items() if key.endswith(A))
    config = LoraConfig(
        r=rank,
        lora_alpha=_plain(scaling * rank),  # type: ignore[arg-type]
        target_modules=list(targets),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    tensors = {PREFIX + key: tensor.contiguous() for key, tensor in adapter.items()}
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})


def _plain(value: float) -> float:
    return int(value) if math.isfinite(value) and value == int(value) else value
