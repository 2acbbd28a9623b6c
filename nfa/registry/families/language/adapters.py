"""LoRA adapters on a language model, through PEFT: made, read, written, taken out of the base, saved.

An adapter is a mapping `<module>.lora_A.weight` [r i], `<module>.lora_B.weight` [o r], with paths in the base model.
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
PREFIX = "base_model.model."  # of PEFT, before the paths in the base model
PEFT_INITS: dict[str, bool | str] = {"random": True}  # others by their own name
SHOWN = 8  # names in a message
A, B = "lora_A.weight", "lora_B.weight"


def matching_modules(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Module]:
    """Linear layers by path that a target is the end of.

    Raises `Refusal` for a target that is the end of none, and for one whose weights are also another module's.
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
    """The model with a LoRA layer at every module that fits; its weights and global generators stay as they are.

    `init` is random (A uniform, B zero) or one of PEFT's own. What pissa and olora take from the weights is still in
    them: `take_out`.
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
    """Weights that are in float32 within the block, whatever it does with them, and as they were after it."""
    before = {layer: layer.weight.data for layer in layers}
    for layer, weight in before.items():
        layer.weight.data = weight.float() if weight.dtype == torch.float64 else weight.clone()
    yield
    for layer, weight in before.items():
        layer.weight.data = weight


def adapted_modules(model: nn.Module) -> dict[str, Any]:
    """PEFT's LoRA layers by their path in the base model."""
    found = {}
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A") and hasattr(layer, "get_delta_weight"):
            found[name.removeprefix(PREFIX)] = layer
    return found


def narrower(model: nn.Module, rank: int) -> dict[str, int]:
    """Modules whose update can have fewer directions than `rank`, and how many: as their factors or sides allow."""
    most = {
        name: min(len(layer.lora_A["default"].weight), *layer.get_base_layer().weight.shape)
        for name, layer in adapted_modules(model).items()
    }
    return {name: directions for name, directions in most.items() if directions < rank}


def own_dropout(model: nn.Module) -> dict[str, float]:
    """Shares above 0 that parts of a base model itself drop in training, by the names of these parts."""
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
    """A copy of the model's adapter."""
    return {name: weight.detach().cpu().clone() for name, weight in _factors(model).items()}


def _factors(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.{part}": factor["default"].weight
        for name, layer in adapted_modules(model).items()
        for part, factor in ((A, layer.lora_A), (B, layer.lora_B))
    }


def write_adapter(model: nn.Module, adapter: Adapter) -> None:
    """Give the model this adapter; raise `Refusal` unless it has factors for each adapted module and no others."""
    own = _factors(model)
    check_fits(adapter, {name: tuple(weight.shape) for name, weight in own.items()})
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(adapter[name])


def check_fits(adapter: Adapter, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `Refusal` unless the adapter has the factors that are wanted, by name and shape, and no others."""
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
    """The first names in a message, and how many there are."""
    shown = ", ".join(sorted(names)[:SHOWN]) or "none"
    return shown + (f" … ({len(names)})" if len(names) > SHOWN else "")


def take_out(model: nn.Module) -> None:
    """W − (alpha/r) B A instead of W in every adapted module, so that the model is what it was without its adapter."""
    with torch.no_grad():
        for layer in adapted_modules(model).values():
            weight = layer.get_base_layer().weight
            weight -= layer.get_delta_weight("default").to(weight)


def put_in(model: nn.Module, adapter: Adapter, scaling: float) -> None:
    """W + (alpha/r) B A in the plain model's own weights."""
    layers = dict(model.named_modules())
    with torch.no_grad():
        for key in adapter:
            if key.endswith(A):
                name = key.removesuffix(f".{A}")
                weight = layers[name].weight
                update = scaling * adapter[f"{name}.{B}"].to(weight) @ adapter[key].to(weight)
                weight += update if isinstance(layers[name], nn.Linear) else update.T  # Conv1D keeps it transposed


def over_pristine(adapter: Adapter, initial: Adapter | None) -> dict[str, Tensor]:
    """The adapter as an update of the base as published: B A − B₀ A₀ as one product of twice the rank.

    `initial` is B₀, A₀, which the base lacks; None if it lacks nothing.
    """
    if initial is None:
        return dict(adapter)
    joined = {}
    for key, now in adapter.items():
        start = initial[key].to(now)
        joined[key] = torch.cat([now, start]) if key.endswith(A) else torch.cat([now, -start], dim=1)
    return joined


def save_adapter(folder: Path, adapter: Adapter, *, scaling: float, targets: Sequence[str], base: str) -> None:
    """`adapter_config.json` and `adapter_model.safetensors`, which PeftModel.from_pretrained reads."""
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
