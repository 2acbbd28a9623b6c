"""How each layer type is read as one linear map z = W h + b, in the one layout [n s i] → [n s o].

`n` is always the number of examples in the batch. A rule is found by the qualified name of a class or of one of its
bases, so that layers of packages that are not installed need no import.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nfa.errors import Refusal


@dataclass(frozen=True)
class Rule:
    """Reads a layer: `inputs` of its first argument, `outputs` of anything shaped like its output, `weight` [o i].

    `inputs` and `outputs` get the module, the tensor and n. `hears` names the parameter whose products are listened to
    where the layer computes without calling a module of its own; `rows` are then the rows of it that make up W.
    """

    inputs: Callable[[Any, Tensor, int], Float[Tensor, "n s i"]]
    outputs: Callable[[Any, Tensor, int], Float[Tensor, "n s o"]]
    weight: Callable[[Any], Float[Tensor, "o i"]]
    hears: Callable[[Any], Tensor] | None = None
    rows: tuple[int, int] = (0, 0)


def rules_for(name: str, module: nn.Module) -> dict[str, Rule]:
    """Rules by site name: one for most layers, four for an `nn.MultiheadAttention`; `Refusal` where there is none."""
    if isinstance(module, nn.MultiheadAttention):
        return {f"{name}.{part}": rule for part, rule in _attention(module).items()}
    for kind in type(module).__mro__:
        rule = RULES.get(f"{kind.__module__}.{kind.__qualname__}")
        if rule:
            return {name: rule}
    known = ", ".join([kind.rpartition(".")[2] for kind in RULES] + ["MultiheadAttention"])
    raise Refusal(
        f"site {name!r} of type {type(module).__name__}",
        known,
        "leave the site out, or add a rule to nfa/observe/rules.py",
    )


ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


def site_names(name: str, module: nn.Module) -> list[str]:
    """Names of the sites that a module would make, whether there is a rule for it or not."""
    return [f"{name}.{part}" for part in ATTENTION] if isinstance(module, nn.MultiheadAttention) else [name]


def has_rule(module: nn.Module) -> bool:
    """Whether a module can be a site, or several."""
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__}
    return isinstance(module, nn.MultiheadAttention) or bool(names & RULES.keys())


def _features_last(_module: nn.Module, tensor: Tensor, _n: int) -> Float[Tensor, "n s f"]:
    return tensor.reshape(tensor.shape[0], -1, tensor.shape[-1])


def _channels_second(_module: nn.Module, tensor: Tensor, _n: int) -> Float[Tensor, "n s f"]:
    return tensor.flatten(2).transpose(1, 2)


def _time_first(_module: nn.Module, tensor: Tensor, n: int) -> Float[Tensor, "n s f"]:
    return tensor.reshape(-1, n, tensor.shape[-1]).transpose(0, 1)


def _patches(module: "nn.Conv1d | nn.Conv2d", tensor: Tensor, _n: int) -> Float[Tensor, "n s i"]:
    """The patch under the kernel at each output position, channels before kernel offsets."""
    lead = (1,) * (2 - len(module.kernel_size))  # a Conv1d is a Conv2d on images of height 1
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = F.pad(tensor, module._reversed_padding_repeated_twice, mode)
    image = padded if len(module.kernel_size) == 2 else padded.unsqueeze(2)
    kernel, dilation, stride = (lead + part for part in (module.kernel_size, module.dilation, module.stride))
    return F.unfold(image, kernel, dilation=dilation, stride=stride).transpose(1, 2)


def _kernel(module: "nn.Conv1d | nn.Conv2d") -> Float[Tensor, "o i"]:
    """The kernel as a matrix; a grouped one is block diagonal: outputs of a group see that group's channels only."""
    weight = module.weight.detach().flatten(1)
    if module.groups == 1:
        return weight
    group_o, group_i = weight.shape[0] // module.groups, weight.shape[1]
    blocks = weight.new_zeros(module.groups, group_o, module.groups, group_i)
    for group in range(module.groups):
        blocks[group, :, group] = weight[group * group_o : (group + 1) * group_o]
    return blocks.reshape(weight.shape[0], module.groups * group_i)


def _with_adapters(module: Any) -> Float[Tensor, "o i"]:
    """PEFT's W + scaling · B A over the active adapters."""
    adapters = [name for name in module.active_adapters if name in module.lora_A]
    if getattr(module, "lora_variant", None):
        raise Refusal("a LoRA variant (DoRA and others)", "plain LoRA", "name its lora_A and lora_B as sites instead")
    weight = module.get_base_layer().weight.detach()
    if not (module.merged or module.disable_adapters):
        for name in adapters:
            weight = weight + module.get_delta_weight(name).detach()
    matrix: Tensor = weight.T if module.fan_in_fan_out else weight
    return matrix


def _attention(module: nn.MultiheadAttention) -> Mapping[str, Rule]:
    """q, k, v are rows of one packed parameter or three parameters of their own; each is a site."""
    size, rules = module.embed_dim, {}
    for index, part in enumerate(ATTENTION[:3]):
        packed = module.in_proj_weight is not None
        rows = (index * size, (index + 1) * size) if packed else (0, size)
        rules[part] = _projection("in_proj_weight" if packed else f"{part}_weight", rows)
    rules["out_proj"] = _projection("out_proj.weight", (0, size))
    return rules


def _projection(parameter: str, rows: tuple[int, int]) -> Rule:
    def heard(module: nn.Module) -> Tensor:
        return module.get_parameter(parameter)

    return Rule(
        inputs=_time_first,
        outputs=_time_first,
        weight=lambda module: heard(module).detach()[slice(*rows)],
        hears=heard,
        rows=rows,
    )


_linear = partial(Rule, inputs=_features_last, outputs=_features_last)
_convolution = Rule(inputs=_patches, outputs=_channels_second, weight=_kernel)
RULES: dict[str, Rule] = {
    "torch.nn.modules.linear.Linear": _linear(weight=lambda module: module.weight.detach()),
    "torch.nn.modules.conv.Conv1d": _convolution,
    "torch.nn.modules.conv.Conv2d": _convolution,
    "transformers.pytorch_utils.Conv1D": _linear(weight=lambda module: module.weight.detach().T),
    "peft.tuners.lora.layer.Linear": _linear(weight=_with_adapters),
}


def layers_with_rules(model: nn.Module) -> dict[str, nn.Module]:
    """Every layer that has a rule, by its path, outermost first: what is inside attention or LoRA layers is theirs."""
    return dict(_with_rules("", model))


def _with_rules(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if has_rule(module):
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _with_rules(f"{name}.{child_name}".removeprefix("."), child)
