"""Runs as train_lora leaves them, made without a training; and folders of base models with nothing but weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from nfa import seeding
from nfa.checkpoint_files import path_of
from nfa.registry import tracking
from nfa.registry.families.language.base import tiny
from nfa.registry.families.language.base.models import find_base
from nfa.registry.families.language.base.tiny_settings import TinySettings

SHAPES = {
    "self_attn.q_proj": (32, 32),
    "self_attn.k_proj": (16, 32),
    "self_attn.v_proj": (16, 32),
    "self_attn.o_proj": (32, 32),
    "mlp.gate_proj": (48, 32),
    "mlp.up_proj": (48, 32),
    "mlp.down_proj": (32, 48),
}
DIGEST = "0" * 64
PREFIX = "base_model.model."


@dataclass(frozen=True)
class Tiny:
    """What a run of train_lora has learned: dense updates by module over the pristine base, float64, and its id."""

    run_id: str
    updates: Mapping[str, Tensor]


def shapes(layers: int = 2) -> dict[str, tuple[int, int]]:
    """Of the modules of a small language model."""
    return {f"model.layers.{layer}.{name}": shape for layer in range(layers) for name, shape in SHAPES.items()}


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def base_folder(folder: Path, *, seed: int = 0, **changed: Any) -> Path:
    """An untrained model with the modules of `shapes`, and its tokenizer."""
    from nfa.registry.families.language.base.quiet import quiet

    sizes = {"hidden": 32, "layers": 2, "heads": 4, "key_value_heads": 2, "intermediate": 48}
    with seeding.untouched(), quiet():
        torch.manual_seed(seed)
        tiny.untrained(TinySettings(**{**sizes, **changed})).save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
    return folder


def gpt2_folder(folder: Path, *, seed: int = 0) -> Path:
    """An untrained GPT-2 with one block of 16 features."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from nfa.registry.families.language.base.quiet import quiet

    with seeding.untouched(), quiet():
        torch.manual_seed(seed)
        config = GPT2Config(vocab_size=tiny.VOCABULARY, n_embd=16, n_layer=1, n_head=2, n_positions=32)
        GPT2LMHeadModel(config).save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
    return folder


def adapter_run(
    *,
    modules: Mapping[str, tuple[int, int]] | None = None,
    rank: int = 4,
    alpha: float = 8.0,
    residual: bool = False,
    zero: Sequence[str] = (),
    steps: Sequence[int] = (0, 10),
    seed: int = 0,
    name: str = "lora",
    entrypoint: str = "train_lora",
    drop: str = "",
    rename: Mapping[str, str] = {},
) -> Tiny:
    """A run with an adapter: B grows from 0 (`residual`: from B₀), but not that of modules in `zero`."""
    modules = modules or shapes()
    initial: dict[str, Tensor] = {}
    updates: dict[str, Tensor] = {}
    checkpoints: dict[int, dict[str, Tensor]] = {step: {} for step in steps}
    for j, (module, (o, i)) in enumerate(modules.items()):
        a = draw(rank, i, seed=seed + 10 * j)
        first = draw(o, rank, seed=seed + 10 * j + 1) * residual
        moved = draw(o, rank, seed=seed + 10 * j + 2) * (module not in zero)
        initial |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": first}
        for step in steps:
            b = first + step / max(1, *steps) * moved
            checkpoints[step][f"{PREFIX}{module}.lora_A.default.weight"] = a.clone()
            checkpoints[step][f"{PREFIX}{module}.lora_B.default.weight"] = b
        updates[module] = alpha / rank * (b.double() - first.double()) @ a.double()
    config = _config(modules, "svd" if residual else "random", rank, alpha) | {"residual": residual}
    for weights in checkpoints.values():
        for key in [key for key in weights if drop and drop in key]:
            del weights[key]
        for old, new in rename.items():
            for key in [key for key in weights if old in key]:
                weights[key.replace(old, new)] = weights.pop(key)
    return Tiny(_run(config | {"entrypoint": entrypoint}, checkpoints, name, initial), updates)


def full_run(folder: Path, digest: str = "", *, seed: int = 50) -> Tiny:
    """A run that trained the targets' own weights, from the base in `folder`."""
    modules, found = shapes(), find_base(str(folder))
    base = load_file(folder / "model.safetensors")
    moved = {name: 0.1 * draw(*shape, seed=seed + j) for j, (name, shape) in enumerate(modules.items())}
    after = {f"{name}.weight": base[f"{name}.weight"] + update for name, update in moved.items()}
    before = {key: base[key].clone() for key in after}
    config = _config(modules, "full", 16, 16.0) | {
        "base": {"name": found.name, "digest": digest or found.digest, "parameters": found.parameters}
    }
    updates = {name: after[f"{name}.weight"].double() - base[f"{name}.weight"].double() for name in modules}
    return Tiny(_run(config, {0: before, 10: after}, "full", None), updates)


def _config(modules: Mapping[str, Any], init: str, rank: int, alpha: float) -> dict[str, Any]:
    factors = {"start": "residual", "factors": "abc"} if init == "svd" else {}
    return {
        "entrypoint": "train_lora",
        "workload": "lora",
        "train": {"base_model": "tiny", "init": init, "rank": rank, "alpha": alpha, **factors},
        "base": {"name": "tiny", "digest": DIGEST, "parameters": 1},
        "data": {"name": "arithmetic", "digest": DIGEST},
        "modules": list(modules),
        "residual": False,
    }


def _run(config: Mapping[str, Any], checkpoints: Mapping[int, Any], name: str, initial: Any) -> str:
    entrypoint = config["entrypoint"]
    with tracking.open_run(entrypoint, "lora", name=name, tags={"nfa.trained": "true"}, adopt=False) as run:
        tracking.put_json(run.info, "config.json", config)
        if initial is not None:
            tracking.put_tensors(run.info, "initial_adapter.safetensors", initial)
        for step, weights in checkpoints.items():
            tracking.put_tensors(run.info, path_of(step, "step"), weights)
    return run.run_id
