"""Read safetensors files one tensor at a time: shapes, pairs of an adapter, and names that must match."""

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from nfa.errors import Refusal
from nfa.registry.families.language.adapters import PREFIX, listed

Shape = tuple[int, int]


def check_names(what: str, found: set[str], wanted: set[str]) -> None:
    """`Refusal` with both lists unless every target has weights and all weights have a target."""
    if found != wanted:
        without, unused = listed(wanted - found), listed(found - wanted)
        got = f"{what}: targets without weights: {without}; weights that match no target: {unused}"
        raise Refusal(got, "weights for each target, and no others", "use files of the same model and targets")


def tensors_of(file: Path, *names: str) -> list[Tensor]:
    """Some tensors of a file, of which nothing else is read."""
    with safe_open(file, "pt") as content:
        return [content.get_tensor(name) for name in names]


def matrices_in(file: Path) -> dict[str, Shape]:
    """Shapes of the matrices among a file's weights."""
    with safe_open(file, "pt") as content:
        shapes = {name: tuple(content.get_slice(name).get_shape()) for name in content.keys()}  # noqa: SIM118
    return {name: shape for name, shape in shapes.items() if len(shape) == 2 and name.endswith(".weight")}


def adapter_shapes(file: Path) -> dict[str, Shape]:
    """Return shapes [o i] by module for pairs B [o r] and A [r i]; other tensors appear under their own name."""
    found = {name.removeprefix(PREFIX): shape for name, shape in matrices_in(file).items()}
    ends = ".lora_A.default.weight", ".lora_B.default.weight"
    modules = {name.removesuffix(end) for end in ends for name in found if name.endswith(end)}
    whole = {name for name in modules if all(f"{name}{end}" in found for end in ends)}
    strange = {
        name: shape for name, shape in found.items() if not any(f"{m}{end}" == name for m in whole for end in ends)
    }
    return strange | {name: (found[name + ends[1]][0], found[name + ends[0]][1]) for name in whole}
